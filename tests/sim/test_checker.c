/* SPDX-License-Identifier: Apache-2.0 */
/* Every rule of the judge is broken once by hand, and a history that keeps all of them is let pass.
 */
#include "tests/test.h"

#include "tests/sim/checker.h"

static const struct content zero;

static struct checker *new_checker(void)
{
	struct checker_config config = {
		.node_count = 3,
		.actor_count = 3,
		.page_count = 4,
		.stall_bound_ns = 1000,
		.progress_bound_ns = 2000,
	};
	struct checker *checker = checker_create(&config);

	assert_non_null(checker);
	for (uint32_t node = 0; node < 3; node++)
		checker_set_capacity(checker, node, 0, 2);
	return checker;
}

static void write_page(struct checker *checker, uint32_t node, struct content *content)
{
	struct content after = { content->version + 1, node, content->sum, 0 };

	checker_write(checker, node, 0, content, &after, false, 10);
	*content = after;
}

static void expect(struct checker *checker, enum rule rule)
{
	assert_string_equal(rule_name(checker_verdict(checker)->rule), rule_name(rule));
	checker_destroy(checker);
}

static void test_good_history(void **state)
{
	struct checker *checker = new_checker();
	struct content content = zero;

	checker_begin(checker, 0, 1);
	checker_stall(checker, 0, 0, 0, COH_WRITE, 1);
	checker_access(checker, 0, 0, 0, COH_WRITE, &content, 5);
	checker_wake(checker, 0, 5);
	checker_after_input(checker, 0, 5);
	write_page(checker, 0, &content);
	checker_complete(checker, 0, 10);
	checker_access(checker, 0, 0, 0, COH_READ, &content, 11);
	checker_access(checker, 1, 0, 0, COH_READ, &content, 12);
	checker_read(checker, 1, 0, &content, 13);
	checker_access(checker, 0, 0, 0, COH_NONE, &zero, 14);
	checker_access(checker, 1, 0, 0, COH_WRITE, &content, 15);
	write_page(checker, 1, &content);
	checker_time(checker, 100000);
	checker_still(checker, 100000);
	assert_int_equal(checker_longest_stall_ns(checker), 4);
	assert_int_equal(checker_longest_instruction_ns(checker), 9);
	expect(checker, RULE_NONE);
}

static void test_single_writer(void **state)
{
	struct checker *checker = new_checker();

	checker_access(checker, 0, 0, 0, COH_WRITE, &zero, 1);
	checker_access(checker, 1, 0, 0, COH_READ, &zero, 2);
	expect(checker, RULE_SINGLE_WRITER);

	checker = new_checker();
	checker_access(checker, 0, 0, 0, COH_READ, &zero, 1);
	checker_access(checker, 1, 0, 0, COH_READ, &zero, 2);
	checker_access(checker, 1, 0, 0, COH_WRITE, &zero, 3);
	expect(checker, RULE_SINGLE_WRITER);
}

static void test_stale(void **state)
{
	struct checker *checker = new_checker();
	struct content content = zero, old = zero;

	checker_access(checker, 0, 0, 0, COH_WRITE, &zero, 1);
	write_page(checker, 0, &content);
	checker_read(checker, 0, 0, &old, 11);
	expect(checker, RULE_STALE_READ);

	checker = new_checker();
	content = zero;
	checker_access(checker, 0, 0, 0, COH_WRITE, &zero, 1);
	write_page(checker, 0, &content);
	checker_access(checker, 0, 0, 0, COH_NONE, &zero, 12);
	checker_access(checker, 1, 0, 0, COH_READ, &old, 13);
	expect(checker, RULE_STALE_READ);
}

static void test_lost_write(void **state)
{
	struct checker *checker = new_checker();
	struct content content = zero, old = zero, after = { 1, 0, 0, 0 };

	checker_access(checker, 0, 0, 0, COH_WRITE, &zero, 1);
	write_page(checker, 0, &content);
	write_page(checker, 0, &old);
	expect(checker, RULE_LOST_WRITE);

	checker = new_checker();
	checker_access(checker, 0, 0, 0, COH_WRITE, &zero, 1);
	checker_write(checker, 0, 0, &zero, &after, true, 2); /* an increment that added nothing */
	expect(checker, RULE_LOST_WRITE);
}

static void test_lost_page(void **state)
{
	struct checker *checker = new_checker();
	struct content content = zero;

	checker_access(checker, 0, 0, 0, COH_WRITE, &zero, 1);
	write_page(checker, 0, &content);
	checker_access(checker, 0, 0, 0, COH_NONE, &zero, 12);
	checker_still(checker, 13);
	expect(checker, RULE_LOST_PAGE);
}

static void test_capacity(void **state)
{
	struct checker *checker = new_checker();

	for (uint32_t page = 0; page < 3; page++)
		checker_access(checker, 0, 0, page, COH_READ, &zero, page);
	expect(checker, RULE_CAPACITY);
}

static void test_bounds(void **state)
{
	struct checker *checker = new_checker();

	checker_stall(checker, 2, 1, 3, COH_READ, 100);
	checker_time(checker, 1100);
	assert_int_equal(checker_verdict(checker)->rule, RULE_NONE);
	checker_time(checker, 1101);
	expect(checker, RULE_STALL_BOUND);

	checker = new_checker();
	checker_begin(checker, 2, 100);
	checker_time(checker, 2101);
	expect(checker, RULE_PROGRESS_BOUND);

	checker = new_checker();
	checker_stall(checker, 2, 1, 3, COH_READ, 100);
	checker_still(checker, 101);
	expect(checker, RULE_STALL_BOUND);
}

static void test_wake_forgotten(void **state)
{
	struct checker *checker = new_checker();

	checker_stall(checker, 0, 1, 2, COH_READ, 1);
	checker_stall(checker, 1, 1, 3, COH_READ, 1);
	checker_access(checker, 1, 0, 2, COH_READ, &zero, 2);
	checker_wake(checker, 1, 2);
	checker_after_input(checker, 1, 2);
	expect(checker, RULE_WAKE_FORGOTTEN);
}

static void test_pin(void **state)
{
	struct checker *checker = new_checker();

	checker_access(checker, 0, 0, 0, COH_WRITE, &zero, 1);
	checker_pinned(checker, 0, 0, 0, COH_WRITE, 2);
	checker_access(checker, 0, 0, 0, COH_READ, &zero, 3);
	expect(checker, RULE_PIN_BROKEN);

	checker = new_checker();
	checker_access(checker, 0, 0, 0, COH_WRITE, &zero, 1);
	checker_pinned(checker, 0, 0, 0, COH_WRITE, 2);
	checker_unpinned(checker, 0);
	checker_access(checker, 0, 0, 0, COH_NONE, &zero, 3);
	expect(checker, RULE_NONE);

	checker = new_checker();
	checker_access(checker, 0, 0, 0, COH_READ, &zero, 1);
	checker_pinned(checker, 0, 0, 0, COH_WRITE, 2);
	expect(checker, RULE_PIN_BROKEN);
}

/* A page that was written, by node 0, and is being freed. */
static struct checker *freeing_checker(struct content *content)
{
	struct checker *checker = new_checker();

	*content = zero;
	checker_access(checker, 0, 0, 0, COH_WRITE, &zero, 1);
	write_page(checker, 0, content);
	checker_free_begin(checker, 0);
	return checker;
}

static void test_freed(void **state)
{
	struct content content, written;
	struct checker *checker = freeing_checker(&content);

	checker_access(checker, 0, 0, 0, COH_NONE, &zero, 2);
	checker_free_end(checker, 0, 0, true, 3);
	checker_still(checker, 4);
	checker_access(checker, 1, 0, 0, COH_WRITE, &zero, 5);
	expect(checker, RULE_NONE);

	/* It may come back before who freed it hears of it; then it counts again. */
	checker = freeing_checker(&content);
	checker_access(checker, 0, 0, 0, COH_NONE, &zero, 2);
	written = zero;
	checker_access(checker, 1, 0, 0, COH_WRITE, &zero, 3);
	write_page(checker, 1, &written);
	checker_free_end(checker, 0, 0, true, 11);
	checker_access(checker, 1, 0, 0, COH_NONE, &zero, 12);
	checker_access(checker, 2, 0, 0, COH_WRITE, &zero, 13);
	expect(checker, RULE_STALE_READ);
}

static void test_freed_wrongly(void **state)
{
	struct content content;
	struct checker *checker = freeing_checker(&content);

	checker_free_end(checker, 0, 0, true, 2); /* and node 0 has it */
	expect(checker, RULE_FREED);

	checker = freeing_checker(&content);
	checker_access(checker, 0, 0, 0, COH_NONE, &zero, 2);
	checker_access(checker, 1, 0, 0, COH_WRITE, &zero, 3);
	checker_free_end(checker, 0, 0, false, 4);
	expect(checker, RULE_FREED);

	checker = freeing_checker(&content);
	checker_free_end(checker, 0, 0, false, 2);
	checker_access(checker, 0, 0, 0, COH_NONE, &zero, 3);
	checker_access(checker, 1, 0, 0, COH_WRITE, &zero, 4);
	expect(checker, RULE_STALE_READ);

	checker = freeing_checker(&content);
	checker_access(checker, 1, 0, 0, COH_READ, &zero, 2); /* beside node 0's copy */
	expect(checker, RULE_SINGLE_WRITER);

	checker = freeing_checker(&content);
	checker_still(checker, 2);
	expect(checker, RULE_FREED);
}

static void test_first_verdict_stays(void **state)
{
	struct checker *checker = new_checker();

	checker_fail(checker, RULE_ERROR, 1, 2, 3, "the first: %d", 1);
	checker_fail(checker, RULE_ACTIONS, 2, 3, 4, "the second");
	assert_string_equal(checker_verdict(checker)->text, "the first: 1");
	assert_int_equal(checker_verdict(checker)->node, 1);
	expect(checker, RULE_ERROR);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_history),  cmocka_unit_test(test_single_writer),
		cmocka_unit_test(test_stale),	      cmocka_unit_test(test_lost_write),
		cmocka_unit_test(test_lost_page),     cmocka_unit_test(test_capacity),
		cmocka_unit_test(test_bounds),	      cmocka_unit_test(test_wake_forgotten),
		cmocka_unit_test(test_pin),	      cmocka_unit_test(test_freed),
		cmocka_unit_test(test_freed_wrongly), cmocka_unit_test(test_first_verdict_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
