/* SPDX-License-Identifier: Apache-2.0 */
/* One of a set of sockets: by chance or a hash, over the runs of neighbouring indices as a binary
 * tree; or by the CPU, over runs in which CPUs and indices go side by side. */
#include "core/steering_program.h"

static int compare_indices(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static int compare_cpus(const void *a, const void *b)
{
	const struct cpu_socket *x = a, *y = b;

	if (x->cpu != y->cpu)
		return (x->cpu > y->cpu) - (x->cpu < y->cpu);
	return (x->index > y->index) - (x->index < y->index);
}

void selection_done(struct selection *s)
{
	free(s->runs);
	free(s->cpus);
	free(s->leaves);
	free(s->sharing);
	free(s->others);
	*s = (struct selection){.runs = NULL};
}

/* How many of cpus[0..n-1] one leaf takes: those of one CPU, or a run of CPUs with one socket each,
 * whose indices follow each other as the CPUs do. */
static size_t leaf_length(const struct cpu_socket *cpus, size_t n)
{
	size_t len = 1;

	while (len < n && cpus[len].cpu == cpus[0].cpu)
		len++;
	if (len > 1)
		return len;
	while (len < n && cpus[len].cpu == cpus[0].cpu + len &&
		cpus[len].index == cpus[0].index + len &&
		(len + 1 == n || cpus[len + 1].cpu != cpus[len].cpu))
		len++;
	return len;
}

static int init_cpus(struct selection *s, const uint32_t *indices, const uint32_t *cpus, size_t n)
{
	s->cpus = calloc(n, sizeof(*s->cpus));
	s->leaves = calloc(n, sizeof(*s->leaves));
	s->sharing = calloc(n, sizeof(*s->sharing));
	s->others = calloc(n, 2 * sizeof(*s->others));
	if (!s->cpus || !s->leaves || !s->sharing || !s->others)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		s->cpus[i] = (struct cpu_socket){cpus[i], indices[i]};
	qsort(s->cpus, n, sizeof(*s->cpus), compare_cpus);
	for (size_t i = 0; i < n; i += s->leaves[s->n_leaves++].n)
		s->leaves[s->n_leaves] =
			(struct cpu_leaf){&s->cpus[i], leaf_length(&s->cpus[i], n - i)};
	return 0;
}

int selection_init(struct selection *s, enum steering_draw draw, const uint32_t *indices,
	const uint32_t *cpus, size_t n)
{
	_cleanup_(selection_done) struct selection made = {.draw = draw};
	_cleanup_free_ uint32_t *sorted = NULL;
	int r = 0;

	if (n == 0 || n > UINT16_MAX) /* the kernel's own limit of a group */
		return -EINVAL;
	sorted = calloc(n, sizeof(*sorted));
	made.runs = calloc(n, sizeof(*made.runs));
	if (!sorted || !made.runs)
		return -ENOMEM;
	made.n_sockets = (uint32_t)n;
	memcpy(sorted, indices, n * sizeof(*sorted));
	qsort(sorted, n, sizeof(*sorted), compare_indices);
	for (size_t i = 0; i < n; i++) {
		if (i > 0 && sorted[i] == sorted[i - 1])
			return -EINVAL;
		if (i == 0 || sorted[i] != sorted[i - 1] + 1)
			made.runs[made.n_runs++] = (struct run){sorted[i], (uint32_t)i};
	}
	if (draw == STEERING_CPU && cpus)
		r = init_cpus(&made, indices, cpus, n);
	if (r < 0)
		return r;
	*s = made;
	made = (struct selection){.runs = NULL};
	return 0;
}

/* --- by a number ---------------------------------------------------------------------------- */

/* The tree over n runs from the first: A is the number of the socket within the selection. */
static void emit_tree(struct program *p, const struct run *runs, size_t n)
{
	struct program left = {NULL, 0};

	if (n == 1) {
		/* Sorted and distinct, so never less than what is before. */
		if (runs->first != runs->before)
			emit_statement(p, BPF_ALU | BPF_ADD | BPF_K, runs->first - runs->before);
		emit_statement(p, BPF_RET | BPF_A, 0);
		return;
	}
	emit_tree(&left, runs, n / 2);
	emit_below(p, runs[n / 2].before, left.n);
	emit_tree(p, runs, n / 2);
	emit_tree(p, runs + n / 2, n - n / 2);
}

static void emit_number(struct program *p, enum steering_draw draw)
{
	if (draw == STEERING_CLIENT)
		emit_statement(p, BPF_LD | BPF_MEM, MEMORY_CLIENT);
	else if (draw == STEERING_FLOW)
		emit_statement(p, BPF_LD | BPF_MEM, MEMORY_FLOW);
	else
		emit_statement(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_RANDOM));
}

static void emit_drawn(struct program *p, const struct selection *s)
{
	if (s->n_sockets == 1) {
		emit_statement(p, BPF_RET | BPF_K, s->runs[0].first);
		return;
	}
	emit_number(p, s->draw);
	emit_statement(p, BPF_ALU | BPF_MOD | BPF_K, s->n_sockets);
	emit_tree(p, s->runs, s->n_runs);
}

/* --- by CPU --------------------------------------------------------------------------------- */

/* Sockets that share a CPU: one of them by chance. */
static void emit_sharing(struct program *p, const struct selection *s, const struct cpu_leaf *leaf)
{
	struct selection part = {.runs = s->sharing, .n_sockets = (uint32_t)leaf->n};

	for (size_t i = 0; i < leaf->n; i++)
		if (i == 0 || leaf->first[i].index != leaf->first[i - 1].index + 1)
			part.runs[part.n_runs++] = (struct run){leaf->first[i].index, (uint32_t)i};
	emit_drawn(p, &part);
}

/* A is the CPU. It is not below the leaf's first one, but for the leftmost leaf. */
static void emit_leaf(struct program *p, const struct selection *s, const struct cpu_leaf *leaf,
	bool leftmost, size_t *n_others)
{
	uint32_t first = leaf->first->cpu, last = leaf->first[leaf->n - 1].cpu;
	uint32_t index = leaf->first->index;

	if (leftmost && first > 0) {
		emit_jump(p, BPF_JGE, first, 1, 0);
		s->others[(*n_others)++] = emit_jump_ahead(p);
	}
	emit_jump(p, BPF_JGT, last, 0, 1);
	s->others[(*n_others)++] = emit_jump_ahead(p);
	if (last == first) {
		emit_sharing(p, s, leaf);
		return;
	}
	/* Modulo 2^32: the index may be the smaller one. */
	if (index != first)
		emit_statement(p, BPF_ALU | BPF_ADD | BPF_K, index - first);
	emit_statement(p, BPF_RET | BPF_A, 0);
}

/* Leaves from the i-th. */
static void emit_cpu_tree(
	struct program *p, const struct selection *s, size_t i, size_t n, size_t *n_others)
{
	struct program left = {NULL, 0};
	size_t before = *n_others;

	if (n == 1) {
		emit_leaf(p, s, &s->leaves[i], i == 0, n_others);
		return;
	}
	emit_cpu_tree(&left, s, i, n / 2, &before);
	emit_below(p, s->leaves[i + n / 2].first->cpu, left.n);
	emit_cpu_tree(p, s, i, n / 2, n_others);
	emit_cpu_tree(p, s, i + n / 2, n - n / 2, n_others);
}

static void emit_by_cpu(struct program *p, const struct selection *s)
{
	size_t n_others = 0;

	emit_statement(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_CPU));
	emit_cpu_tree(p, s, 0, s->n_leaves, &n_others);
	for (size_t i = 0; i < n_others; i++)
		land_here(p, s->others[i]);
	/* On a CPU that no worker has. */
	emit_drawn(p, s);
}

size_t selection_size(const struct selection *s)
{
	struct program p = {NULL, 0};

	emit_selection(&p, s);
	return p.n;
}

void emit_selection(struct program *p, const struct selection *s)
{
	if (s->n_sockets > 1 && s->cpus)
		emit_by_cpu(p, s);
	else
		emit_drawn(p, s);
}
