#!/usr/bin/perl
# A web server for demonstrations: serves one small page on port 80 and writes a line per request.
# Needs perl-base only, which every Debian has.
use strict;
use warnings;
use IO::Socket::INET;

$| = 1;
$SIG{TERM} = sub { exit 0 };

my $server = IO::Socket::INET->new(LocalPort => 80, Listen => 16, ReuseAddr => 1)
    or die "listen on port 80: $!\n";
print "serving on port 80\n";
while (my $client = $server->accept) {
    my $request = <$client> // '';
    while (defined(my $line = <$client>)) {
        last if $line =~ /^\r?$/;
    }
    $request =~ s/\s+$//;
    print $client->peerhost, " $request\n";
    my $page = "<h1>Hello from " . (getpwuid($>))[0] . " in $ENV{HOSTNAME}</h1>\n";
    print $client "HTTP/1.0 200 OK\r\nContent-Type: text/html\r\nContent-Length: "
        . length($page) . "\r\n\r\n$page";
    close $client;
}
