# The distribution's own papers: META.json by the PGXN Meta Spec 1.0.0, one
# version number everywhere, and nothing in the tree that ought not to leave
# the workshop.

use strict;
use warnings;

use JSON::PP;
use Test::More;

my $semver = qr/^(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*)){2}(?:-?[A-Za-z][-0-9A-Za-z]*)?$/;
my $term = qr{^[^\s/\\\x00-\x1f]{2,}$};
my $tag = qr{^[^/\\\x00-\x1f]{1,255}$};
my %is_license = map { $_ => 1 } qw(agpl_3 apache_1_1 apache_2_0 artistic_1 artistic_2
  bsd freebsd gfdl_1_2 gfdl_1_3 gpl_1 gpl_2 gpl_3 lgpl_2_1 lgpl_3_0 mit
  mozilla_1_0 mozilla_1_1 openssl perl_5 postgresql qpl_1_0 ssleay sun zlib
  open_source restricted unrestricted unknown);

sub slurp
{
	my ($file) = @_;
	open my $in, '<:raw', $file or die "could not open $file: $!";
	local $/;
	return <$in>;
}

# The files of the tree: the runner's list, since its copy is no repository.
sub tree_files
{
	my $list = defined $ENV{LEASE_FILES}
	  ? slurp($ENV{LEASE_FILES})
	  : qx(git ls-files -z -co --exclude-standard);
	return grep { -f } split /\0/, $list;
}

sub is_text { return defined $_[0] && !ref $_[0] && length $_[0] }

# One string, or a list of them: what the spec calls a List.
sub is_list
{
	my ($value, $pattern) = @_;
	my @items = ref $value eq 'ARRAY' ? @$value : ($value);
	return @items && !grep { !is_text($_) || $_ !~ $pattern } @items;
}

# A version range: comma-separated versions, each with an optional operator.
sub is_range
{
	my ($range) = @_;
	return 1 if $range eq '0';
	return !grep { !s/^\s*(?:<=?|>=?|==|!=)?\s*//r =~ $semver } split /\s*,/, $range;
}

sub check_required
{
	my ($meta) = @_;

	like($meta->{name}, $term, 'name is a term');
	like($meta->{version}, $semver, 'version is semantic');
	ok(is_text($meta->{abstract}), 'abstract is text');
	ok(is_list($meta->{maintainer}, qr/\S/), 'maintainer is a list of strings');
	ok($is_license{ $meta->{license} }, 'license is a known one');
	is($meta->{'meta-spec'}{version}, '1.0.0', 'meta-spec names its version');
	like($meta->{release_status} // 'stable', qr/^(?:stable|testing|unstable)$/,
		'release_status is one of three');
	ok(is_list($meta->{tags}, $tag), 'tags are tags');
	is_deeply([ grep { !/^(?:abstract|description|generated_by|license|maintainer|
				meta-spec|name|no_index|prereqs|provides|release_status|resources|tags|version|
				x_.*)$/xi } keys %$meta ],
		[], 'no key that the spec does not know');
}

sub check_provides
{
	my ($meta) = @_;

	while (my ($name, $provided) = each %{ $meta->{provides} })
	{
		like($name, $term, "provides $name: is a term");
		like($provided->{version}, $semver, "provides $name: version is semantic");
		ok(-f ($provided->{$_} // ''), "provides $name: $_ exists") for qw(file docfile);
	}
}

sub check_prereqs
{
	my ($meta) = @_;

	while (my ($phase, $relations) = each %{ $meta->{prereqs} })
	{
		like($phase, qr/^(?:configure|build|test|runtime|develop)$/, "prereqs: phase $phase");
		while (my ($relation, $wanted) = each %$relations)
		{
			like($relation, qr/^(?:requires|recommends|suggests|conflicts)$/,
				"prereqs: relation $relation");
			ok(is_range($wanted->{$_}), "prereqs: $_ has a version range") for keys %$wanted;
		}
	}
}

sub check_versions
{
	my ($meta) = @_;
	my ($default) = slurp('lease.control') =~ /^default_version\s*=\s*'([^']+)'/m;
	my ($newest) = slurp('CHANGELOG.md') =~ /^## \[([^\]]+)\]/m;

	is("$default.0", $meta->{version}, 'lease.control has the version of META.json');
	is($newest, $meta->{version}, 'CHANGELOG.md has the version of META.json');
	is($meta->{provides}{lease}{version}, $meta->{version}, 'the extension has it, too');
	is($meta->{provides}{lease}{file}, "sql/lease--$default.sql", 'provided is what is installed');
}

# Patterns are taken apart so that this file does not match itself.
sub check_tree
{
	my @files = tree_files();
	my @unfinished = ('TO' . 'DO', 'FIX' . 'ME', 'XX' . 'X');
	my $unfinished = join '|', @unfinished;
	my $machine_path = qr{(?<![\w.\$\}/])/(?:home|root|work|Users)/\w};
	my %found;

	cmp_ok(scalar @files, '>', 10, 'the tree has files');
	foreach my $file (@files)
	{
		my $text = slurp($file);
		push @{ $found{unfinished} }, $file if $text =~ /\b(?:$unfinished)\b/;
		push @{ $found{path} }, $file if $text =~ $machine_path;
		push @{ $found{binary} }, $file if $text =~ /\0/;
	}
	is_deeply($found{unfinished}, undef, 'nothing is marked as unfinished');
	is_deeply($found{path}, undef, "nothing names a path of somebody's machine");
	is_deeply($found{binary}, undef, 'nothing is binary');
}

my $meta = eval { decode_json(slurp('META.json')) };
ok($meta, 'META.json is JSON') or die $@;
check_required($meta);
check_provides($meta);
check_prereqs($meta);
check_versions($meta);
check_tree();

done_testing();
