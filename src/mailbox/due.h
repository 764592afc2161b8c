/*
 * due.h
 *	  Entities whose time has come: their back-off is over.
 */
#ifndef ACT_DUE_H
#define ACT_DUE_H

#include "actornot.h"

extern TimestampTz act_due_push(TimestampTz from, int max);

#endif							/* ACT_DUE_H */
