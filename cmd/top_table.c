/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fits into the width is chosen by the columns' ranks.
 *
 * Tested in tests/cmd/test_top_frame.c.
 */
#include "cmd/top_table.h"

#include <stdarg.h>
#include <string.h>

#define LINE_MAX_ 1024

double top_add(double sum, double part)
{
	if (part < 0)
		return sum;
	return sum < 0 ? part : sum + part;
}

double top_percent(double part, double whole)
{
	return part < 0 || whole <= 0 ? TOP_UNKNOWN : part * 100 / whole;
}

/* ---- cells ----------------------------------------------------------------------------------- */

static void put_scaled(char *cell, double value, double step, const char *units)
{
	if (value < 0) {
		strcpy(cell, "-");
		return;
	}
	while (value >= (step > 1000 ? 1023.5 : 999.5) && units[1]) {
		value /= step;
		units++;
	}
	snprintf(cell, TOP_CELL_MAX, value < 9.95 && value != (int)value ? "%.1f%.1s" : "%.0f%.1s",
		 value, *units == ' ' ? "" : units);
}

void cell_count(char *cell, double value)
{
	put_scaled(cell, value, 1000, " kMGT");
}

void cell_bytes(char *cell, double value)
{
	put_scaled(cell, value, 1024, " KMGT");
}

void cell_time(char *cell, double ns)
{
	put_scaled(cell, ns, 1000, "num ");
	if (ns >= 0)
		strcat(cell, "s");
}

void cell_percent(char *cell, double value)
{
	snprintf(cell, TOP_CELL_MAX, value < 0 ? "-" : "%.0f", value);
}

void cell_map(char *cell, const double *part, unsigned int count)
{
	double whole = 0;
	for (unsigned int i = 0; i < count; i++)
		whole = top_add(whole, part[i]);
	for (unsigned int i = 0; i < count; i++) {
		double tenths = top_percent(part[i], whole) / 10;
		*cell++ = tenths < 0	   ? '-'
			  : tenths == 0	   ? '.'
			  : tenths < 0.5   ? '+'
			  : tenths >= 9.95 ? '#'
			  : tenths >= 8.5  ? '9'
					   : (char)('0' + (int)(tenths + 0.5));
	}
	*cell = '\0';
}

void cell_map_title(char *cell, const char *what, unsigned int count)
{
	cell += sprintf(cell, "%s ", what);
	for (unsigned int i = 0; i < count; i++)
		*cell++ = (char)('0' + i % 10);
	*cell = '\0';
}

/* ---- lines ----------------------------------------------------------------------------------- */

void lines_put(struct top_lines *lines, bool heading, const char *line)
{
	const struct top_view *view = lines->view;
	size_t width = strlen(line);
	if (view->height && lines->count >= view->height)
		return;
	while (width && line[width - 1] == ' ')
		width--;
	if (view->width && width > view->width)
		width = view->width;
	if (heading && view->styled)
		fprintf(lines->out, "\033[7m%-*.*s\033[m\n", (int)view->width, (int)width, line);
	else
		fprintf(lines->out, "%.*s\n", (int)width, line);
	lines->count++;
}

void lines_text(struct top_lines *lines, const char *format, ...)
{
	char line[LINE_MAX_];
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	lines_put(lines, false, line);
}

static void put_row(struct top_lines *lines, const struct top_column *columns, unsigned int count,
		    uint32_t chosen, const top_row cells)
{
	char line[LINE_MAX_];
	size_t used = 0;
	for (unsigned int i = 0; i < count; i++) {
		const char *cell = cells ? cells[i] : columns[i].title;
		int width = (int)columns[i].width;
		if (!(chosen & 1u << i))
			continue;
		used += (size_t)snprintf(line + used, sizeof(line) - used, "%s%*.*s",
					 used ? " " : "", columns[i].left ? -width : width, width,
					 cell);
	}
	lines_put(lines, !cells, line);
}

static uint32_t choose(const struct top_lines *lines, const struct top_column *columns,
		       unsigned int count)
{
	unsigned int left = lines->view->width ? lines->view->width + 1 : LINE_MAX_;
	uint32_t chosen = 0;
	for (unsigned int rank = 0; rank < TOP_COLUMNS_MAX; rank++)
		for (unsigned int i = 0; i < count; i++) {
			unsigned int need = columns[i].width + 1;
			if (columns[i].rank != rank || (rank && need > left))
				continue;
			chosen |= 1u << i;
			left -= need < left ? need : left;
		}
	return chosen;
}

void lines_table(struct top_lines *lines, const struct top_column *columns,
		 unsigned int column_count, top_put_row *put, const void *ctx, unsigned int count,
		 unsigned int room)
{
	uint32_t chosen = choose(lines, columns, column_count);
	unsigned int shown = count > room ? (room ? room - 1 : 0) : count;
	lines_put(lines, false, "");
	put_row(lines, columns, column_count, chosen, NULL);
	for (unsigned int i = 0; i < shown; i++) {
		top_row cells = { 0 };
		put(ctx, i, cells);
		put_row(lines, columns, column_count, chosen, cells);
	}
	if (shown < count && room)
		lines_text(lines, "and %u more", count - shown);
}
