/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cells, lines and tables of a page of `eagre top` (top_frame.h): how numbers look, not what they
 * are. Unknown is TOP_UNKNOWN everywhere, and shown as "-".
 */
#ifndef CMD_TOP_TABLE_H
#define CMD_TOP_TABLE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cmd/top_frame.h"

#define TOP_UNKNOWN	(-1.0)
#define TOP_CELL_MAX	256
#define TOP_COLUMNS_MAX 16

/* A sum of which a part is unknown is of the others. */
double top_add(double sum, double part);
double top_percent(double part, double whole);

/* Into a cell of TOP_CELL_MAX bytes. Numbers have four characters: 0.3, 42, 999, 1.2k, 45M. */
void cell_count(char *cell, double value);
void cell_bytes(char *cell, double value);
void cell_time(char *cell, double ns);
void cell_percent(char *cell, double value);
/* A character a node: its part of the whole in tenths; and the heading of such a map. */
void cell_map(char *cell, const double *part, unsigned int count);
void cell_map_title(char *cell, const char *what, unsigned int count);

/* The page's lines so far, cut to the view's width and height. */
struct top_lines {
	FILE *out;
	const struct top_view *view;
	unsigned int count;
};

void lines_put(struct top_lines *lines, bool heading, const char *line);
__attribute__((format(printf, 2, 3))) void lines_text(struct top_lines *lines, const char *format,
						      ...);

struct top_column {
	char title[TOP_CELL_MAX];
	unsigned int width, rank; /* a lower rank goes first; 0 is always there */
	bool left;
};

typedef char top_row[TOP_COLUMNS_MAX][TOP_CELL_MAX];
typedef void top_put_row(const void *ctx, unsigned int row, top_row cells);

/* An empty line, a heading, and so many of the rows as `room` says; the last then counts the rest.
 */
void lines_table(struct top_lines *lines, const struct top_column *columns,
		 unsigned int column_count, top_put_row *put, const void *ctx, unsigned int count,
		 unsigned int room);

#endif
