/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's two serial ports and its virtio port, and this process's standard streams.
 *
 *      terminal   ttyS0 <-> stdin, stdout (a terminal in raw mode; Ctrl-] ends the pod, Ctrl-^ is a
 *                 BREAK); ttyS1 <- the terminal's size, if the guest has a runner that asks for it
 *      command    virtio port or ttyS1 <-> stdin, stdout, stderr and an exit status, framed
 *                 (guest/channel.h), by whichever of the two the guest's runner greets first;
 *                 ttyS0  -> the log
 *      none       ttyS0  -> the log; nothing is read
 *
 * What the guest writes is offered: whoever does so never waits, but hears how much was taken, and when
 * there is room again. So the reader of stdout is waited for in the guest, by the driver of the port.
 * At the guest's end its last words are waited for: console_flush(). So the callbacks must not wait
 * for who runs the serial ports for long: input that finds it busy is offered again. All else happens
 * on the console's thread.
 */
#ifndef NODE_CONSOLE_H
#define NODE_CONSOLE_H

#include <stddef.h>
#include <stdint.h>

enum console_mode {
	CONSOLE_NONE,
	CONSOLE_TERMINAL,
	CONSOLE_COMMAND,
};

#define CONSOLE_VIRTIO 2 /* the port that is no serial one */
#define CONSOLE_PORTS  3

struct console_config {
	enum console_mode mode;
	int in_fd, out_fd, err_fd; /* the standard streams */
	int log_fd;		   /* of ttyS0 in the other modes; -1: nowhere */
	unsigned int hello_ms;	   /* a command that has not begun by then is warned of; 0: never */
	/* By which that is; NULL: the host's. From console_open(), then on the console's thread. */
	uint64_t (*now_ns)(void *context);
	/*
	 * Bytes for a port: how many were taken; the rest is offered again, after a while or after
	 * console_input_room(). Console's thread.
	 */
	size_t (*input)(void *context, unsigned int port, const uint8_t *data, size_t size);
	/* A BREAK behind that input: how many were taken, 1 or 0. Console's thread. */
	size_t (*send_break)(void *context, unsigned int port);
	/* console_offer() takes more of that port's again. Console's thread. */
	void (*room)(void *context, unsigned int port);
	/* One line that the user should know, while the pod goes on. Console's thread. */
	void (*warn)(void *context, const char *line);
	/* The user asked for the end, or (a line of text) the streams failed. Console's thread. */
	void (*end)(void *context, const char *why);
	void *context;
};

struct console;

/* Puts a terminal into raw mode. 0 or negative errno. */
int console_open(const struct console_config *config, struct console **ret_console);
/*
 * From any thread but the console's: the guest wrote these bytes to `port`. Waits for nobody: how many
 * were taken; after fewer than all, room() is called when it is worth another try.
 */
size_t console_offer(struct console *console, unsigned int port, const uint8_t *data, size_t size);
/* Input that was refused may be taken now. Any thread. */
void console_input_room(struct console *console);
/* Who runs the serial ports: waits until all of it has been written out, or console_close() is called. */
void console_flush(struct console *console);
/*
 * Writes out what is queued (at most a second), restores the terminal. NULL is fine. The memory
 * stays: vCPUs may still be writing, which then goes nowhere, and the exit status is asked for
 * afterwards. The process is about to end.
 */
void console_close(struct console *console);
/* The terminal may have another size. Any thread. */
void console_resized(struct console *console);
/* Why output was lost, or NULL. After console_close(). */
const char *console_failure(const struct console *console);
/* Exit status of the command, or -ENODATA while none came. Any thread. */
int console_exit_status(const struct console *console);

#endif
