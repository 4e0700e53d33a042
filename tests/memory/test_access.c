/* SPDX-License-Identifier: Apache-2.0 */
/* Ports: pages are asked for one at a time, in order, with the right access, and always given back.
 */
#include "tests/test.h"

#include <errno.h>
#include <string.h>

#include "memory/access.h"

struct fake {
	struct memory_port port; /* first */
	uint64_t asked[16];
	enum coh_access want[16];
	uint32_t pins, unpins;
	int refuse_at; /* the pin that fails, -1: none */
	bool elsewhere;
};

static int fake_pin(struct memory_port *port, uint64_t gpn, enum coh_access want)
{
	struct fake *fake = (struct fake *)port;

	assert_int_equal(fake->pins, fake->unpins);
	if ((int)fake->pins == fake->refuse_at)
		return -ESHUTDOWN;
	fake->asked[fake->pins] = gpn;
	fake->want[fake->pins++] = want;
	/* Installed the first time, -EEXIST later. */
	(void)guest_memory_install(port->memory, gpn, 1, NULL, COH_WRITE, true);
	return 0;
}

static int fake_pin_here(struct memory_port *port, uint64_t gpn, enum coh_access want)
{
	struct fake *fake = (struct fake *)port;

	return fake->elsewhere ? -EAGAIN : fake_pin(port, gpn, want);
}

static void fake_unpin(struct memory_port *port, uint64_t gpn)
{
	struct fake *fake = (struct fake *)port;

	assert_int_equal(gpn, fake->asked[fake->unpins]);
	fake->unpins++;
}

static const struct memory_port_ops fake_ops = { fake_pin, fake_pin_here, fake_unpin };

static void fake_open(struct fake *fake)
{
	struct guest_memory_config config = { { { 0, CHUNK_BYTES } }, 1, 1 };

	*fake = (struct fake){ .port = { .ops = &fake_ops, .gpn = MEMORY_PORT_IDLE },
			       .refuse_at = -1 };
	assert_int_equal(guest_memory_create(&config, &fake->port.memory), 0);
}

static void copies_cross_pages(void **state)
{
	static uint8_t data[3 * PAGE_BYTES], back[3 * PAGE_BYTES];
	struct fake fake;

	fake_open(&fake);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + i / 256);
	assert_int_equal(memory_write(&fake.port, 100, data, 2 * PAGE_BYTES), 0);
	assert_int_equal(fake.pins, 3);
	assert_int_equal(fake.unpins, 3);
	assert_int_equal(fake.want[1], COH_WRITE);
	assert_int_equal(fake.asked[2], 2);
	assert_int_equal(memory_read(&fake.port, 100, back, 2 * PAGE_BYTES), 0);
	assert_memory_equal(data, back, 2 * PAGE_BYTES);
	assert_int_equal(fake.want[5], COH_READ);
	guest_memory_destroy(fake.port.memory);
}

static void one_page_at_a_time(void **state)
{
	struct fake fake;
	size_t length = 3 * PAGE_BYTES;
	void *hva;

	fake_open(&fake);
	assert_int_equal(memory_acquire(&fake.port, 4000, COH_READ, &hva, &length), 0);
	assert_int_equal(length, 96);
	assert_ptr_equal(hva, guest_memory_hva(fake.port.memory, 4000));
	assert_int_equal(memory_acquire(&fake.port, 0, COH_READ, &hva, &length), -EBUSY);
	memory_release(&fake.port);
	memory_release(&fake.port);
	assert_int_equal(fake.unpins, 1);
	guest_memory_destroy(fake.port.memory);
}

static void only_if_it_is_here(void **state)
{
	struct fake fake;
	size_t length = 8;
	void *hva;

	fake_open(&fake);
	fake.elsewhere = true;
	assert_int_equal(memory_acquire_here(&fake.port, 64, COH_WRITE, &hva, &length), -EAGAIN);
	memory_release(&fake.port);
	assert_int_equal(fake.unpins, 0);
	fake.elsewhere = false;
	assert_int_equal(memory_acquire_here(&fake.port, 64, COH_WRITE, &hva, &length), 0);
	assert_int_equal(memory_acquire_here(&fake.port, 0, COH_READ, &hva, &length), -EBUSY);
	memory_release(&fake.port);
	assert_int_equal(fake.pins, 1);
	assert_int_equal(fake.unpins, 1);
	guest_memory_destroy(fake.port.memory);
}

static void errors_come_through(void **state)
{
	struct fake fake;
	uint8_t byte[2 * PAGE_BYTES] = { 0 };

	fake_open(&fake);
	assert_int_equal(memory_read(&fake.port, CHUNK_BYTES, byte, 1), -EFAULT);
	assert_int_equal(memory_write(&fake.port, CHUNK_BYTES - 1, byte, 2), -EFAULT);
	assert_int_equal(fake.pins, 1);
	fake.refuse_at = 2;
	assert_int_equal(memory_write(&fake.port, 0, byte, sizeof(byte)), -ESHUTDOWN);
	assert_int_equal(fake.pins, fake.unpins);
	guest_memory_destroy(fake.port.memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(copies_cross_pages),
		cmocka_unit_test(one_page_at_a_time),
		cmocka_unit_test(only_if_it_is_here),
		cmocka_unit_test(errors_come_through),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
