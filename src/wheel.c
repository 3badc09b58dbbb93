/*-------------------------------------------------------------------------
 *
 * wheel.c
 *	  Which grant of a partition expires next.
 *
 * A hierarchical timing wheel after Varghese and Lauck, "Hashed and
 * Hierarchical Timing Wheels" (1987), scheme 7.  Filing, removing and expiring
 * cost the same however many grants are alive.
 *
 * Time is counted in ticks of 2^10 microseconds.  A grant whose tick differs
 * from the wheel's tick first in the n-th group of six bits (from the top) is
 * filed at level n, in the slot that this group of its own tick names.  As the
 * wheel's tick reaches the start of a slot of level n > 0, the slot's grants
 * are filed again, at lower levels; a slot of level 0 holds what is due at one
 * tick.
 *
 * Two things keep the work under one lock hold small.  Refiling a slot need
 * not be finished at once: the slot that the wheel's tick stands in may still
 * have grants, and is looked at first.  And a renewal does not touch the wheel:
 * a grant whose deadline was put off is found out, and filed again, when its
 * old slot is reached.  A deadline that was brought forward must be refiled by
 * whoever does that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port/pg_bitutils.h"
#include "wheel.h"

#define TICK_SHIFT			10
#define TickAt(when)		((uint64) (when) >> TICK_SHIFT)
#define TickAfter(when)		TickAt((when) + (1 << TICK_SHIFT) - 1)
#define TickTime(tick)		((MonoTime) ((tick) << TICK_SHIFT))

#define LevelShift(level)	((level) * WHEEL_BITS)
#define SlotOf(tick, level) ((int) ((tick) >> LevelShift(level)) & (WHEEL_SLOTS - 1))

static uint64
File(Wheel *wheel, Grant *grant)
{
	uint64		tick = Max(TickAfter(grant->deadline), wheel->tick);
	uint64		differs = tick ^ wheel->tick;
	int			level = differs == 0 ? 0 : pg_leftmost_one_pos64(differs) / WHEEL_BITS;
	int			slot = SlotOf(tick, level);

	Assert(level < WHEEL_LEVELS);
	dlist_push_tail(&wheel->slots[level][slot], &grant->in_time);
	wheel->occupied[level] |= UINT64CONST(1) << slot;
	return tick;
}

/* Is a slot really in use?  Corrects its bit if not. */
static bool
IsOccupied(Wheel *wheel, int level, int slot)
{
	uint64		bit = UINT64CONST(1) << slot;

	if ((wheel->occupied[level] & bit) == 0)
		return false;
	if (!dlist_is_empty(&wheel->slots[level][slot]))
		return true;
	wheel->occupied[level] &= ~bit;
	return false;
}

/*
 * Find the slot that comes first, and the tick at which it starts.
 *
 * First in time is the slot that the wheel stands in, at each level but the
 * lowest: it was reached and not emptied yet.  Then lower levels come before
 * higher ones, since all of a level lies within the wheel's slot of the next.
 */
static bool
FirstSlot(Wheel *wheel, int *level, int *slot, uint64 *start)
{
	for (*level = WHEEL_LEVELS - 1; *level > 0; (*level)--)
	{
		*slot = SlotOf(wheel->tick, *level);
		*start = wheel->tick;
		if (IsOccupied(wheel, *level, *slot))
			return true;
	}

	for (*level = 0; *level < WHEEL_LEVELS; (*level)++)
	{
		int			shift = LevelShift(*level);
		int			here = SlotOf(wheel->tick, *level);
		uint64		ahead;

		while ((ahead = wheel->occupied[*level] & (~UINT64CONST(0) << here)) != 0)
		{
			*slot = pg_rightmost_one_pos64(ahead);
			*start = (((wheel->tick >> shift) & ~(uint64) (WHEEL_SLOTS - 1)) | *slot) << shift;
			if (IsOccupied(wheel, *level, *slot))
				return true;
		}
	}
	return false;
}

static void
PublishNextDue(Partition *part)
{
	int			level;
	int			slot;
	uint64		start;
	MonoTime	due = MONO_NEVER;

	if (FirstSlot(&part->wheel, &level, &slot, &start))
		due = TickTime(start);
	pg_atomic_write_u64(&part->next_due, due);
}

/* File a grant under its deadline, and see that the launcher knows. */
void
WheelAdd(Partition *part, Grant *grant)
{
	MonoTime	due = TickTime(File(&part->wheel, grant));

	if ((uint64) due < pg_atomic_read_u64(&part->next_due))
	{
		pg_atomic_write_u64(&part->next_due, due);
		RingLauncher(due);
	}
}

/* Take out a grant that will not expire, or must be filed anew. */
void
WheelRemove(Grant *grant)
{
	dlist_delete(&grant->in_time);
}

/*
 * Take out a grant whose deadline has passed; NULL if there is none, or when
 * the budget of grants to look at is used up (it is then 0; call again after
 * giving others the lock).
 */
Grant *
WheelPop(Partition *part, MonoTime now, int *budget)
{
	Wheel	   *wheel = &part->wheel;
	int			level;
	int			slot;
	uint64		start;

	while (FirstSlot(wheel, &level, &slot, &start) && start <= TickAt(now))
	{
		Grant	   *grant;

		if ((*budget)-- == 0)
		{
			*budget = 0;
			return NULL;
		}
		wheel->tick = start;
		grant = dlist_container(Grant, in_time,
								dlist_pop_head_node(&wheel->slots[level][slot]));
		if (level == 0 && grant->deadline <= now)
			return grant;
		File(wheel, grant);
	}

	wheel->tick = Max(wheel->tick, TickAt(now));
	PublishNextDue(part);
	return NULL;
}
