#include <names/protocol.h>

int main(void)
{
    return names_serve();
}
