# lease: fenced advisory leases for PostgreSQL
#
# all, install, uninstall, clean and installcheck are PGXS's and want the
# pg_config of a server.  test, test-full, demo, drill and bench want nothing: they
# install what is missing and run on servers of their own.

MODULE_big = lease
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c)))
EXTENSION = lease
DATA = $(sort $(wildcard sql/lease--*.sql))
PGFILEDESC = "lease - fenced advisory leases"

# The client program; top is left out where there is no curses.
LEASECTL = src/leasectl/leasectl
LEASECTL_OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/leasectl/*.c)))
CURSES := $(if $(wildcard /usr/include/curses.h),-lncursesw -ltinfo)
SCRIPTS_built = $(LEASECTL)

# The server's headers leave parameters unused; our own code does not.
PG_CFLAGS = -Wextra -Wno-unused-parameter

# pg_regress finds test/sql/NAME.sql and expected/NAME.out; specs likewise.
REGRESS = $(sort $(patsubst test/sql/%.sql,%,$(wildcard test/sql/*.sql)))
REGRESS_OPTS = --inputdir=test --load-extension=lease
ISOLATION = $(sort $(patsubst test/specs/%.spec,%,$(wildcard test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test --outputdir=. --load-extension=lease
EXTRA_CLEAN = output_iso $(LEASECTL_OBJS)

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

# The goals below work where there is no server yet.
ifneq ($(wildcard $(PGXS)),)
include $(PGXS)
$(OBJS): $(wildcard src/*.h)
$(LEASECTL_OBJS): $(wildcard src/leasectl/*.h)
$(LEASECTL_OBJS): override CPPFLAGS := -I$(includedir) -D_GNU_SOURCE $(if $(CURSES),-DWITH_CURSES) $(CPPFLAGS)
$(LEASECTL): $(LEASECTL_OBJS)
	$(CC) $(CFLAGS) $^ $(LDFLAGS) $(LDFLAGS_EX) -L$(libdir) -lpq $(CURSES) -lm -o $@

# Its man page, and what bash completes.
install: install-leasectl-files
uninstall: uninstall-leasectl-files
completions = $(datadir)/bash-completion/completions
install-leasectl-files:
	$(MKDIR_P) '$(DESTDIR)$(mandir)/man1' '$(DESTDIR)$(completions)'
	$(INSTALL_DATA) doc/leasectl.1 '$(DESTDIR)$(mandir)/man1/leasectl.1'
	$(INSTALL_DATA) src/leasectl/leasectl.bash '$(DESTDIR)$(completions)/leasectl'
uninstall-leasectl-files:
	rm -f '$(DESTDIR)$(bindir)/leasectl' '$(DESTDIR)$(mandir)/man1/leasectl.1' \
		'$(DESTDIR)$(completions)/leasectl'
else
all install uninstall clean installcheck:
	@echo "$(PG_CONFIG) knows no PGXS: install PostgreSQL's server headers" \
		"or name another one with PG_CONFIG=" >&2; exit 1
endif

test:
	@test/run test

test-full:
	@LEASE_TEST_FULL=1 test/run test

demo:
	@test/run demo

drill:
	@test/run drill

bench:
	@test/run bench

help:
	@echo 'make            build for the server that PG_CONFIG belongs to'
	@echo 'make install    install there; then CREATE EXTENSION lease'
	@echo 'make demo       see it at work; KEEP=1 leaves the server running'
	@echo 'make drill      practise a runbook; says which there are'
	@echo 'make test       run every test; TESTS="sql/basic t/001_x.t" runs some'
	@echo 'make test-full  the same with the long ones in full size'
	@echo 'make bench      measure it beside other programs; QUICK=1 takes five minutes'

.PHONY: install-leasectl-files uninstall-leasectl-files
.PHONY: all install uninstall clean installcheck test test-full demo drill bench help
