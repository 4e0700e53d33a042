// SPDX-License-Identifier: Apache-2.0
/*
 * Peers while others are still missing: they send heartbeats to each other, and nobody waits for one
 * that was here and is lost. Heartbeats are counted where they lie, unread: the control thread reads
 * them later, in order. A link that ends takes all links of its node with it, and that node starts
 * anew, if it comes back in time.
 */
#include "link/bring_up.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#define BEAT_NS	     (500 * MS)
#define SILENCE_NS   (3000 * MS) /* of a linked node */
#define ANSWER_NS    (4000 * MS) /* of one that takes connections: it may be starting */
#define LAST_WORD_NS (400 * MS)
#define LATE_NS	     (1000 * MS) /* a judge that did not run so long judges nobody by it */

/* Its END, if it said one: the bring-up's end, too. What else it said goes with its links. */
static int take_last_words(struct mesh *mesh, uint16_t node)
{
	struct mesh_peer *peer = &mesh->peer[node];
	struct control_message *msg = malloc(sizeof(*msg));
	int error = msg && peer->control ? 0 : -ENOMEM;

	while (error == 0 && (error = control_receive(peer->control, msg)) == 0) {
		if (msg->type != CONTROL_END)
			continue;
		snprintf(mesh->why, mesh->why_size, "the pod ended: %s", msg->end.text);
		if (mesh->config.ended)
			mesh->config.ended(mesh->config.ctx, &msg->end);
		error = -ECONNABORTED;
	}
	free(msg);
	return error == -ECONNABORTED ? error : 0;
}

static int peer_lost(struct mesh *mesh, uint16_t node)
{
	char text[MESH_WHY_MAX], peer[MESH_WHY_MAX / 2];
	int error = take_last_words(mesh, node);

	if (error < 0)
		return error;
	snprintf(text, sizeof(text), "lost %s while waiting for other nodes",
		 mesh_describe(mesh, node, peer, sizeof(peer)));
	peer_say(mesh, MESH_DROPPED, node, text);
	peer_drop(mesh, node, "it ended its links during bring-up");
	return 0;
}

/* Who joins has not begun: its last words are of no interest, and it may come again. */
static void late_lost(struct mesh *mesh, uint16_t node)
{
	char text[MESH_WHY_MAX], peer[MESH_WHY_MAX / 2];

	snprintf(text, sizeof(text), "lost %s before it had joined",
		 mesh_describe(mesh, node, peer, sizeof(peer)));
	peer_say(mesh, MESH_DROPPED, node, text);
	peer_drop(mesh, node, "it ended its links before it had joined");
}

/* A link ended. If it is a page link, the control link may have the node's last word. */
int peer_link_ended(struct mesh *mesh, struct mesh_connection *connection)
{
	struct mesh_peer *peer = &mesh->peer[connection->node];

	if (mesh->complete) {
		late_lost(mesh, connection->node);
		return 0;
	}
	if (connection->purpose == HANDSHAKE_CONTROL)
		return peer_lost(mesh, connection->node);
	epoll_ctl(mesh->epoll, EPOLL_CTL_DEL, connection->stream.fd, NULL);
	if (peer->ending_ns == 0)
		peer->ending_ns = mesh_now_ns() + LAST_WORD_NS;
	return 0;
}

static int peer_gone(struct mesh *mesh, uint16_t node, const char *cause)
{
	char line[MESH_WHY_MAX], peer[MESH_WHY_MAX / 2];

	snprintf(line, sizeof(line), "%s is gone: %s",
		 mesh_describe(mesh, node, peer, sizeof(peer)), cause);
	snprintf(mesh->why, mesh->why_size, "%s", line);
	atomic_store(&mesh->peer[node].down, true);
	if (mesh->config.down)
		mesh->config.down(mesh->config.ctx, node, line);
	return -ECONNABORTED;
}

/* Bytes that arrive are signs of life, read or not. */
static void hear(struct mesh_peer *peer, uint64_t now_ns)
{
	int unread = 0;

	if (ioctl(control_fd(peer->control), FIONREAD, &unread) < 0 || unread <= peer->unread)
		return;
	peer->unread = unread;
	peer->heard_ns = now_ns;
}

static int judge_peer(struct mesh *mesh, uint16_t node, uint64_t now_ns)
{
	struct mesh_peer *peer = &mesh->peer[node];

	if (peer->control)
		hear(peer, now_ns);
	if (peer->ending_ns && now_ns >= peer->ending_ns)
		return peer_lost(mesh, node);
	if (peer->control && now_ns - peer->heard_ns >= SILENCE_NS)
		return peer_gone(mesh, node,
				 "nothing heard from it for 3 s: it hangs, or its network is cut");
	if (peer->gone_ns && now_ns >= peer->gone_ns)
		return peer_gone(mesh, node,
				 "it was linked, ended its links, and did not come back");
	if (peer->silent_ns && now_ns - peer->silent_ns >= ANSWER_NS)
		return peer_gone(mesh, node,
				 "it takes connections and does not answer: it hangs, or its "
				 "address is another program's");
	return 0;
}

/* A moment of the past, moved on; none is put off until after now. */
static uint64_t moved_on(uint64_t then_ns, uint64_t late_ns, uint64_t now_ns)
{
	return now_ns - then_ns > late_ns ? then_ns + late_ns : now_ns;
}

/* Who did not get to run could not hear anybody. Some may have come in just before this look. */
static void forgive(struct mesh *mesh, uint64_t late_ns, uint64_t now_ns)
{
	for (uint16_t i = 0; i < mesh->config.node_count; i++) {
		struct mesh_peer *peer = &mesh->peer[i];

		peer->heard_ns = moved_on(peer->heard_ns, late_ns, now_ns);
		peer->gone_ns += peer->gone_ns ? late_ns : 0;
		if (peer->silent_ns)
			peer->silent_ns = moved_on(peer->silent_ns, late_ns, now_ns);
	}
}

int peers_judge(struct mesh *mesh, uint64_t now_ns)
{
	int error = 0;

	if (now_ns - mesh->looked_ns > LATE_NS)
		forgive(mesh, now_ns - mesh->looked_ns, now_ns);
	mesh->looked_ns = now_ns;
	for (uint16_t i = 0; i < mesh->config.node_count && error == 0; i++)
		error = judge_peer(mesh, i, now_ns);
	if (error < 0 || now_ns < mesh->beat_ns)
		return error;
	mesh->beat_ns = now_ns + BEAT_NS;
	for (uint16_t i = 0; i < mesh->config.node_count; i++)
		if (mesh->peer[i].control)
			peer_beat(&mesh->peer[i]);
	return 0;
}

void peers_beat_late(struct mesh *mesh, uint64_t now_ns)
{
	if (now_ns < mesh->beat_ns)
		return;
	mesh->beat_ns = now_ns + BEAT_NS;
	for (uint16_t i = 0; i < mesh->config.node_count; i++)
		if (mesh->peer[i].control && !atomic_load(&mesh->peer[i].linked))
			peer_beat(&mesh->peer[i]);
}
