/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tap that a pod has made joins a bridge of this host's (tap.h). Network namespaces are the calling thread's.
 */
#ifndef BACKEND_BRIDGE_H
#define BACKEND_BRIDGE_H

#include <stddef.h>

/*
 * The tap `tap` is a port of `bridge`, and up. 0, or -errno with what is to be said of it in `why`: there is no such
 * bridge (-ENODEV), it is none (-EOPNOTSUPP), no permission (-EPERM). What was done of it is not undone: close the tap.
 */
int bridge_join(const char *bridge, const char *tap, char *why, size_t why_size);

#endif
