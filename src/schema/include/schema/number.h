/*
 * Numbers as JSON writes them, whatever the locale of the program: a library cannot know whether
 * its host says 1,5.
 */
#ifndef SCHEMA_NUMBER_H
#define SCHEMA_NUMBER_H

enum { JSON_NUMBER_SIZE = 32 };

/* Of a number of JSON's. Infinite when it is out of range. */
double json_to_double(const char *text);

/* The shortest text that reads back as the same number, which is finite. */
void json_from_double(double value, char ret[JSON_NUMBER_SIZE]);

#endif
