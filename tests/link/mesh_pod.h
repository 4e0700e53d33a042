/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pods for tests of the mesh: nodes that are threads, each with a mesh of its own, and sockets with
 * which a test speaks to them as it likes.
 */
#ifndef TESTS_LINK_MESH_POD_H
#define TESTS_LINK_MESH_POD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "link/mesh.h"
#include "wire/handshake.h"

#define TEST_NODES 6

struct node {
	struct mesh_config config;
	struct mesh_node peers[TEST_NODES];
	struct mesh *mesh;
	int cancel_fd;
	int result;
	char why[MESH_WHY_MAX];
	pthread_t thread;
	pthread_mutex_t lock; /* log */
	char log[16384];
	char down[MESH_WHY_MAX];
	unsigned linked[TEST_NODES]; /* how often each has joined */
	unsigned linked_count;	     /* and all of them */
};

extern const char *const node_names[TEST_NODES];

/* `count` nodes that have not been started; their ports are no other pod's. */
struct node *pod_make(uint16_t count);
void pod_end(struct node *pod, uint16_t count);
void node_make(struct node *node, uint16_t self, uint16_t count);

void node_start(struct node *node);
int node_finish(struct node *node); /* waits until it is up, or why it is not */
void node_cancel(struct node *node);
void node_end(struct node *node);

/* What it reports goes into its log. */
void node_progress(void *node, enum mesh_event event, uint16_t number, const char *text);
bool node_logged(struct node *node, const char *text);
void node_wait_logged(struct node *node, const char *text);

/* `text` is one line with `part` in it. */
void assert_says(const char *text, const char *part);
/* Something goes through each channel of the pod. */
void check_all_channels(struct node *pod, uint16_t count);
/* The same from node a to b alone. */
void check_channels(struct node *pod, uint16_t a, uint16_t b);

/* As node_make()'s nodes say it, for the control channel. */
struct handshake node_hello(uint16_t node, uint16_t peer, uint16_t node_count);
int listen_at(const char *address);
int connect_to(const char *address);
void receive_whole(int fd, uint8_t bytes[HANDSHAKE_BYTES]);

#endif
