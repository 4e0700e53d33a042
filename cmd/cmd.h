/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Subcommands of `eagre`, one file each. Only cmd/ prints to the user and decides exit statuses.
 */
#ifndef CMD_CMD_H
#define CMD_CMD_H

/* argv[0] is the subcommand's name. Returns the exit status of the program. */
int cmd_drain(int argc, char **argv);
int cmd_explain(int argc, char **argv);
int cmd_join(int argc, char **argv);
int cmd_move(int argc, char **argv);
int cmd_node(int argc, char **argv);
int cmd_pin(int argc, char **argv);
int cmd_policy(int argc, char **argv);
int cmd_probe(int argc, char **argv);
int cmd_replay(int argc, char **argv);
int cmd_trace(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_secret(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_token(int argc, char **argv);
int cmd_top(int argc, char **argv);

/* Exit statuses: the guest's command's own in `run -- COMMAND`, else these. */
enum cmd_status {
	STATUS_OK = 0,
	STATUS_FAILED = 1, /* something went wrong; one line said what */
	STATUS_USAGE = 2,  /* the command line made no sense */
};

/* Progress of a node, on stderr. */
void print_progress(void *context, const char *line);

/*
 * What getopt_long() did not like, in one line: for its answers '?' and ':', when the string of
 * options begins with ':'. Returns STATUS_USAGE.
 */
int complain_option(char **argv, int option);

/*
 * "eagre: " and one line on stderr. Briefly: for who has to end, or to look after others, whether
 * the line gets out or not (message.h).
 */
__attribute__((format(printf, 1, 2))) void complain(const char *format, ...);
__attribute__((format(printf, 1, 2))) void complain_briefly(const char *format, ...);

#endif
