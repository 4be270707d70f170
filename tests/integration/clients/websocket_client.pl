# Calls the calculator over a WebSocket, with Protocol::WebSocket. Arguments: URL.
use strict;
use warnings;
use IO::Socket::INET;
use JSON::PP;
use Protocol::WebSocket::Client;

my $url = "$ARGV[0]/rpc";
my ($address) = $url =~ m{//([^/]+)};
my $socket = IO::Socket::INET->new($address) or die "$address: $!\n";
my $client = Protocol::WebSocket::Client->new(url => $url);
my $answered;
$client->on(write => sub { syswrite $socket, $_[1] });
$client->on(
    connect => sub {
        $_[0]->write(encode_json({jsonrpc => '2.0', id => 1, method => 'subtract', params => [42, 23]}));
    });
$client->on(read => sub { $answered = decode_json($_[1])->{result} });
$client->connect;
until (defined $answered) {
    sysread $socket, my $data, 4096 or die "the other side hung up\n";
    $client->read($data);
}
print "perl $answered\n";
$client->disconnect;
