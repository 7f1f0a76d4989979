/* SPDX-License-Identifier: Apache-2.0 */
/* What kinds of messages the journal knows by MESSAGE_ID: `journalctl -x` explains them from
 * units/tenured.catalog, and they can be searched for whatever their text. An id is for ever. */
#pragma once

#define MESSAGE_ID_LIST(X)                                                                         \
	X("service-failed", "00a2df70801c4d9ab311b4dc1ea11f16")                                    \
	X("generation-serving", "87688ffbc3fe45d38858eb44debc2f1f")                                \
	X("generation-given-up", "0b9380d2bbce413fae545a014872e733")                               \
	X("rollout-started", "3e2f77faf3b54b13ae80a3b2ff3d9fd2")                                   \
	X("rollout-paused", "502c41128ccd4b418a2fe674f9d09d1b")                                    \
	X("rollout-done", "af9b721b070e43dd93cc8daa86de7fc8")                                      \
	X("rolled-back", "5c77419a85664939a656e7b7d61ffafb")                                       \
	X("upgrade-failed", "ee5d34f2e151452eb775b00f4ee911b4")                                    \
	X("reload-failed", "2d8dc324459540df8c62d62fa9ac2be4")                                     \
	X("worker-respawn", "9fb386d99b1449f48eaac0fa06e8fb2e")                                    \
	X("worker-backoff", "f5841311a44b433e89d5e31125060ccc")                                    \
	X("worker-killed", "0840c3f1ab804499aa24f74ba4e40232")                                     \
	X("worker-escalated", "36d8eaa90c4b4de4896eb7817cf75c5a")                                  \
	X("queue-abandoned", "3ea02ad40419449fb67af0a70ce0097b")                                   \
	X("lane-failed", "38ec3036b61140b4ac65e76d6888010d")

/* Of an event's name. NULL: it has none. */
const char *message_id(const char *event);
