// SPDX-License-Identifier: Apache-2.0
/* Fuzzes the parser of the pod's configuration file: what it accepts keeps the promises of its
 * header. */
#include <stdlib.h>
#include <string.h>

#include "node/pod_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pod_config *config = NULL;
	char text[4096], why[512] = "";

	if (size >= sizeof(text))
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (pod_config_parse(text, "fuzz", &config, why, sizeof(why)) < 0) {
		if (config || why[0] == '\0' || strchr(why, '\n'))
			abort();
		return 0;
	}
	if (config->node_count == 0 || config->node_count > NODES_MAX ||
	    config->vcpu_count > VCPUS_MAX || config->shard_count == 0 ||
	    config->shard_count > SHARDS_MAX || config->memory % CHUNK_BYTES != 0 ||
	    memchr(config->name, '\0', sizeof(config->name)) == NULL)
		abort();
	(void)pod_config_digest(config);
	for (uint32_t i = 0; i < config->vcpu_count; i++) {
		if (pod_config_vcpu_node(config, i) >= config->node_count)
			abort();
	}
	free(config);
	return 0;
}
