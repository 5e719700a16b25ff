# The application of the benchmarks, in nothing but the perl that every Debian has: one process a connection.
#
# /       a few words
# /echo   how many bytes of body came, and their sum
# /slow   a megabyte, over two seconds
# /bulk   a megabyte, as fast as it is taken
# /ws     a WebSocket: twenty messages over two seconds, then it is closed in order
use strict;
use warnings;
use IO::Socket::INET;

my $server = IO::Socket::INET->new(LocalPort => 8080, Listen => 512, ReuseAddr => 1) or die "port 8080: $!\n";
# As process 1 of a container only signals with a handler arrive.
$SIG{TERM} = $SIG{INT} = sub { exit 0 };
$SIG{CHLD} = 'IGNORE';

while (1) {
    my $client = $server->accept or next;
    if (fork) { close $client; next }
    $SIG{TERM} = 'DEFAULT';
    close $server;
    $client->autoflush(1);
    while (serve($client)) { }
    exit;
}

# One request; false when the connection is over.
sub serve {
    my ($client) = @_;
    my ($method, $path) = split ' ', (<$client> // return);
    my ($length, $last) = (0, 0);
    while (($_ = <$client> // '') =~ /\S/) {
        $length = $1 if /^content-length:\s*(\d+)/i;
        $last = 1 if /^connection:\s*close/i;
    }
    my $body = '';
    while (length $body < $length) { read($client, $body, $length - length $body, length $body) or return }
    return socket_of($client) if $path eq '/ws';
    return megabyte($client, 20, 0.1) if $path eq '/slow';
    return megabyte($client, 1, 0) if $path eq '/bulk';
    my $text = $path eq '/echo' ? $length . ' ' . unpack('%32C*', $body) . "\n" : "Hello\n";
    print $client "HTTP/1.1 200 OK\r\nContent-Length: ", length $text, "\r\n\r\n$text" or return;
    return !$last;
}

sub megabyte {
    my ($client, $pieces, $pause) = @_;
    print $client "HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n" or return;
    my $left = 1048576;
    for my $piece (1 .. $pieces) {
        my $size = int($left / ($pieces - $piece + 1));
        print $client 'x' x $size or return;
        $left -= $size;
        select undef, undef, undef, $pause;
    }
    return 1;
}

sub socket_of {
    my ($client) = @_;
    # The answer to the key of RFC 6455's example, which is the one the benchmark sends.
    print $client "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n" or return;
    for my $number (1 .. 20) {
        print $client "\x81", chr length $number, $number or return;
        select undef, undef, undef, 0.1;
    }
    print $client "\x88\x02\x03\xe8";
    1 while sysread $client, my $rest, 4096;
    return;
}
