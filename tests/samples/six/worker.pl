# Says that it works, over and over.
use strict;
use warnings;

$SIG{TERM} = $SIG{INT} = sub { print "$ENV{QUARRY_NODE} stops\n"; exit 0 };
$| = 1;
for (my $round = 1;; $round++) {
    print "$ENV{QUARRY_NODE} $ENV{QUARRY_INDEX} works, round $round\n";
    sleep 1;
}
