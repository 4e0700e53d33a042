/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disks and cards of a configuration as a whole: on which nodes, and that none is there twice.
 */
#ifndef NODE_POD_DEVICES_H
#define NODE_POD_DEVICES_H

#include "node/pod_config.h"

/* Fills in what is derived. 0, or -EINVAL with one line in `why`. */
int pod_devices_check(struct pod_config *config, char *why, size_t why_size);
/* Goes on with a digest (digest.h): what the guest sees of devices, and where they are. Paths and
 * taps are a host's own. */
uint64_t pod_devices_digest(const struct pod_config *config, uint64_t digest);

#endif
