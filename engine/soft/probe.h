/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENGINE_SOFT_PROBE_H
#define ENGINE_SOFT_PROBE_H

#include "engine/engine.h"

int soft_probe(struct engine_features *ret_features, char *why, size_t why_size);

#endif
