/* SPDX-License-Identifier: Apache-2.0 */
/* One YAML document (YAML 1.1, and so JSON too) as a tree whose nodes know where they were written.
 * Built from libyaml's events, within limits, so that no file can make it large or slow: depth,
 * nodes, and the size with all aliases written out. Anchors, aliases and merge keys ("<<") work;
 * tags but the standard ones, several documents, keys that are not text, and duplicate keys are
 * problems. */
#pragma once

#include "core/config.h"

enum {
	YAML_DEPTH_MAX = 32,
	YAML_NODES_MAX = 200000,
	YAML_ANCHORS_MAX = 256,
	YAML_TEXT_MAX = 128 << 10, /* of one scalar; execve(2) takes no longer argument */
	YAML_WEIGHT_MAX =
		16 << 20, /* bytes of text, and 16 for each node, with aliases written out */
};

enum node_kind { NODE_SCALAR, NODE_LIST, NODE_MAP };

struct node {
	enum node_kind kind;
	bool plain;	/* a scalar without quotes: may mean null */
	bool duplicate; /* a key that was reported, and is in no map */
	bool open;	/* while it is read: what it contains cannot refer to it */
	struct config_place place;
	char *text;	     /* scalar; without NUL bytes inside */
	struct node **items; /* list: its items; map: key, value, key, value ... */
	size_t n;	     /* of items; even for a map, whose keys are all scalars and unique */
	size_t capacity;
	uint64_t weight;
	struct node *next; /* in yaml_tree.all */
};

struct yaml_tree {
	struct node *root; /* NULL: the document is empty */
	struct node *all;  /* owns every node; several nodes may contain the same one */
	size_t n_nodes;
};

/* data: the file's content; file: its name, for places, borrowed for the tree's life.
 * 0, -EBADMSG (a problem was added that leaves no tree) or -ENOMEM. Also after 0 problems may have
 * been added, such as duplicate keys. */
int yaml_tree_read(const char *file, const void *data, size_t len, struct yaml_tree *ret,
	struct config_problems *problems);
void yaml_tree_done(struct yaml_tree *t);
#define _cleanup_yaml_tree_ _cleanup_(yaml_tree_done)

/* The value of a key of a map, or NULL. */
struct node *node_get(const struct node *map, const char *key);
/* Nothing was written: `key:`, `key: ~`, `key: null`. */
bool node_is_null(const struct node *n);
