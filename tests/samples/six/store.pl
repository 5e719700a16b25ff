# A tiny database that speaks lines: SET KEY VALUE, GET KEY. Values are kept in /data/db.
use strict;
use warnings;
use IO::Socket::INET;

my $server = IO::Socket::INET->new(LocalPort => 27017, Listen => 64, ReuseAddr => 1) or die "port 27017: $!\n";
$SIG{TERM} = $SIG{INT} = sub { exit 0 };
$| = 1;
print "store is open\n";
while (my $client = $server->accept) {
    my ($verb, $key, $value) = split ' ', (<$client> // next), 3;
    my $file = "/data/db/$key";
    if ($verb eq 'SET') {
        open my $out, '>', $file or die "$file: $!\n";
        print $out $value;
        close $out or die "$file: $!\n";
        print $client "OK\n";
    } elsif (open my $in, '<', $file) {
        print $client scalar <$in>;
    } else {
        print $client "nothing\n";
    }
}
