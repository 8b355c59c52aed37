# SPDX-License-Identifier: MIT
# script.pl THOUSANDS: hashes, regular expressions and strings: lines are made, taken apart, counted and put together.
use strict;
use warnings;

my ($thousands) = @ARGV;
my (%count, %lines, $sum);
for my $number (1 .. $thousands * 1000) {
    my $line = join ' ', map { sprintf 'key%d=%s', $_, 'v' x (1 + $number * $_ % 17) } 1 .. 4 + $number % 5;
    $line =~ s/(key\d)=(v+)/$1 . '=' . length($2)/ge;
    my %fields = $line =~ /(\w+)=(\d+)/g;
    $count{"$_/$fields{$_}"}++ for keys %fields;
    push @{ $lines{ $number * 31 % 997 } }, [ split / /, $line ];
    delete $lines{ $number % 997 } if $number % 3 == 0;
}
for my $key (sort keys %lines) {
    $sum += length join ',', sort map { join ';', reverse @$_ } @{ $lines{$key} };
}
print join("\n", $sum, map { "$_ $count{$_}" } sort keys %count), "\n";
