/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes vcpu_image_decode(): what it accepts is a valid state, and its encoding is the input
 * again. */
#include <stdlib.h>
#include <string.h>

#include "wire/vcpu_image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vcpu_state state;
	uint8_t image[VCPU_IMAGE_BYTES_MAX];
	const char *why;
	size_t again;

	if (vcpu_image_decode(data, size, &state))
		return 0;
	if (vcpu_state_check(&state, &why) ||
	    vcpu_image_encode(&state, image, sizeof(image), &again) || again != size ||
	    memcmp(image, data, size))
		abort();
	return 0;
}
