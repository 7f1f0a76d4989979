/* SPDX-License-Identifier: Apache-2.0 */
#include "load.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const failure_names[] = {
#define X(symbol, name) [FAILURE_##symbol] = name,
	FAILURE_KINDS(X)
#undef X
};

/* ---- latency ---- */

static size_t histogram_bucket(uint64_t usec)
{
	unsigned power, shift;
	size_t bucket;

	if (usec < UINT64_C(1) << (HISTOGRAM_SUB_BITS + 1))
		return (size_t)usec;
	power = 63U - (unsigned)__builtin_clzll(usec);
	shift = power - HISTOGRAM_SUB_BITS;
	bucket = ((size_t)shift << HISTOGRAM_SUB_BITS) + (size_t)(usec >> shift);
	return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

/* The largest value that falls into the bucket. */
static uint64_t histogram_value(size_t bucket)
{
	size_t shift, sub;

	if (bucket < (size_t)1 << (HISTOGRAM_SUB_BITS + 1))
		return bucket;
	shift = (bucket >> HISTOGRAM_SUB_BITS) - 1;
	sub = bucket - (shift << HISTOGRAM_SUB_BITS);
	return (((uint64_t)sub + 1) << shift) - 1;
}

void histogram_add(struct histogram *histogram, uint64_t usec)
{
	histogram->buckets[histogram_bucket(usec)]++;
	histogram->n++;
	histogram->sum += usec;
	if (usec > histogram->max)
		histogram->max = usec;
}

uint64_t histogram_percentile(const struct histogram *histogram, double percent)
{
	uint64_t rank, seen = 0;

	if (histogram->n == 0)
		return 0;
	rank = (uint64_t)((double)histogram->n * percent / 100.0 + 0.9999999);
	if (rank < 1)
		rank = 1;
	for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += histogram->buckets[i];
		if (seen >= rank)
			return histogram_value(i) < histogram->max ? histogram_value(i)
								   : histogram->max;
	}
	return histogram->max;
}

/* ---- tallies ---- */

static size_t tally_place(const struct tally *tally, uint64_t key)
{
	size_t i = (size_t)(key * UINT64_C(0x9E3779B97F4A7C15) >> 20) & (tally->n_entries - 1);

	while (tally->entries[i].count > 0 && tally->entries[i].key != key)
		i = (i + 1) & (tally->n_entries - 1);
	return i;
}

static void tally_grow(struct tally *tally)
{
	struct tally old = *tally;

	tally->n_entries = old.n_entries ? old.n_entries * 2 : 64;
	tally->entries = tool_allocate(tally->n_entries, sizeof(*tally->entries));
	tally->last = 0;
	for (size_t i = 0; i < old.n_entries; i++)
		if (old.entries[i].count > 0)
			tally->entries[tally_place(tally, old.entries[i].key)] = old.entries[i];
	free(old.entries);
}

static void tally_add(struct tally *tally, uint64_t key, uint64_t connect_usec, uint64_t now_usec)
{
	struct tally_entry *entry;

	if ((tally->n_used + 1) * 2 > tally->n_entries)
		tally_grow(tally);
	if (tally->entries[tally->last].key != key || tally->entries[tally->last].count == 0)
		tally->last = tally_place(tally, key);

	entry = &tally->entries[tally->last];
	if (entry->count++ == 0) {
		tally->n_used++;
		entry->key = key;
		entry->first_usec = now_usec;
		entry->first_connect_usec = connect_usec;
	}
	entry->last_usec = now_usec;
	/* Slow replies overtake: the connections do not end in the order they began. */
	if (connect_usec < entry->first_connect_usec)
		entry->first_connect_usec = connect_usec;
	if (connect_usec > entry->last_connect_usec)
		entry->last_connect_usec = connect_usec;
}

static int entry_compare(const void *a, const void *b)
{
	uint64_t x = ((const struct tally_entry *)a)->key, y = ((const struct tally_entry *)b)->key;

	return (x > y) - (x < y);
}

/* The entries in the order of their keys; the caller frees. */
static struct tally_entry *tally_sorted(const struct tally *tally)
{
	struct tally_entry *sorted = tool_allocate(tally->n_used, sizeof(*sorted));
	size_t n = 0;

	for (size_t i = 0; i < tally->n_entries; i++)
		if (tally->entries[i].count > 0)
			sorted[n++] = tally->entries[i];
	qsort(sorted, n, sizeof(*sorted), entry_compare);
	return sorted;
}

/* ---- what happened ---- */

void report_ok(struct report *report, const struct reply *reply, const struct request_facts *facts,
	uint64_t now_usec)
{
	uint64_t before = report->last_ok_usec ? report->last_ok_usec : report->start_usec;
	uint64_t gap = now_usec - before;

	report->n_requests++;
	report->n_ok++;
	histogram_add(&report->latency, now_usec - facts->since_usec);

	tally_add(&report->generations, reply->generation, facts->connect_usec, now_usec);
	if (reply->worker != REPLY_NONE)
		tally_add(&report->workers, (uint64_t)reply->generation << 32 | reply->worker,
			facts->connect_usec, now_usec);
	if (reply->pid != REPLY_NONE)
		tally_add(&report->pids, reply->pid, facts->connect_usec, now_usec);

	if (gap > report->gap_usec && !report->stop_usec) {
		report->gap_usec = gap;
		report->gap_at_usec = before;
	}
	report->last_ok_usec = now_usec;
}

void report_failure(struct report *report, enum failure_kind kind, int error, unsigned status,
	const struct request_facts *facts, uint64_t now_usec)
{
	report->n_requests++;
	report->n_failed++;
	report->failures[kind]++;
	if (facts->reused)
		report->n_failed_reused++;
	if (!report->failures_to)
		return;

	fprintf(report->failures_to,
		"%.6f +%.6f %s errno=%s status=%u phase=%s reused=%d local-port=%d "
		"connect=%.6f latency=%.6f\n",
		(double)now_usec / 1e6, (double)(now_usec - report->start_usec) / 1e6,
		failure_names[kind], error ? strerrorname_np(error) : "0", status, facts->phase,
		facts->reused, facts->local_port, (double)facts->connect_usec / 1e6,
		(double)(now_usec - facts->since_usec) / 1e6);
	fflush(report->failures_to);
}

void report_stop(struct report *report, uint64_t now_usec)
{
	uint64_t before = report->last_ok_usec ? report->last_ok_usec : report->start_usec;

	report->stop_usec = now_usec;
	/* An outage that lasted to the end is a gap too. */
	if (now_usec - before > report->gap_usec) {
		report->gap_usec = now_usec - before;
		report->gap_at_usec = before;
	}
}

/* ---- printing ---- */

static void print_key(FILE *file, uint64_t key, bool pairs)
{
	uint32_t high = (uint32_t)(key >> 32), low = (uint32_t)key;

	if (pairs && high != REPLY_NONE)
		fprintf(file, "\"%" PRIu32 ".%" PRIu32 "\"", high, low);
	else if (pairs || low == REPLY_NONE)
		fprintf(file, "\"none\"");
	else
		fprintf(file, "\"%" PRIu32 "\"", low);
}

static void print_counts(FILE *file, const char *name, const struct tally *tally, bool pairs)
{
	struct tally_entry *sorted = tally_sorted(tally);

	fprintf(file, "\"%s\":{", name);
	for (size_t i = 0; i < tally->n_used; i++) {
		print_key(file, sorted[i].key, pairs);
		fprintf(file, ":%" PRIu64 "%s", sorted[i].count, i + 1 < tally->n_used ? "," : "");
	}
	fprintf(file, "}");
	free(sorted);
}

static void print_times(FILE *file, const struct tally *tally)
{
	struct tally_entry *sorted = tally_sorted(tally);

	fprintf(file, "\"generation_times\":{");
	for (size_t i = 0; i < tally->n_used; i++) {
		const struct tally_entry *entry = &sorted[i];

		print_key(file, entry->key, false);
		fprintf(file,
			":{\"first_reply_usec\":%" PRIu64 ",\"last_reply_usec\":%" PRIu64
			",\"first_connect_usec\":%" PRIu64 ",\"last_connect_usec\":%" PRIu64 "}%s",
			entry->first_usec, entry->last_usec, entry->first_connect_usec,
			entry->last_connect_usec, i + 1 < tally->n_used ? "," : "");
	}
	fprintf(file, "}");
	free(sorted);
}

static void print_failures(FILE *file, const struct report *report)
{
	const char *separator = "";

	fprintf(file, "\"failures\":{");
	for (size_t i = 0; i < N_FAILURE_KINDS; i++)
		if (report->failures[i] > 0) {
			fprintf(file, "%s\"%s\":%" PRIu64, separator, failure_names[i],
				report->failures[i]);
			separator = ",";
		}
	fprintf(file, "}");
}

static void print_latency(FILE *file, const char *name, const struct histogram *histogram)
{
	fprintf(file,
		"\"%s\":{\"mean\":%" PRIu64 ",\"p50\":%" PRIu64 ",\"p90\":%" PRIu64
		",\"p99\":%" PRIu64 ",\"p99.9\":%" PRIu64 ",\"p99.99\":%" PRIu64 ",\"max\":%" PRIu64
		"}",
		name, histogram->n ? histogram->sum / histogram->n : 0,
		histogram_percentile(histogram, 50), histogram_percentile(histogram, 90),
		histogram_percentile(histogram, 99), histogram_percentile(histogram, 99.9),
		histogram_percentile(histogram, 99.99), histogram->max);
}

static void print_common(FILE *file, const struct report *report)
{
	fprintf(file, "\"requests\":%" PRIu64 ",\"ok\":%" PRIu64 ",\"failed\":%" PRIu64 ",",
		report->n_requests, report->n_ok, report->n_failed);
	print_failures(file, report);
	fprintf(file, ",");
	print_counts(file, "generations", &report->generations, false);
	fprintf(file, ",");
}

void report_print(const struct report *report, FILE *file, uint64_t now_usec)
{
	uint64_t end = report->stop_usec ? report->stop_usec : now_usec;
	uint64_t duration = end > report->start_usec ? end - report->start_usec : 1;

	fprintf(file, "{");
	print_common(file, report);
	print_counts(file, "workers", &report->workers, true);
	fprintf(file, ",");
	print_counts(file, "pids", &report->pids, false);
	fprintf(file, ",");
	print_times(file, &report->generations);
	fprintf(file, ",");
	print_latency(file, "latency_usec", &report->latency);
	fprintf(file, ",");
	print_latency(file, "connect_usec", &report->connect);
	fprintf(file,
		",\"connections\":%" PRIu64 ",\"idle_closed\":%" PRIu64
		",\"reset_after_reply\":%" PRIu64 ",\"not_started\":%" PRIu64
		",\"failed_reused\":%" PRIu64,
		report->n_connections, report->n_idle_closed, report->n_reset_after_reply,
		report->n_not_started, report->n_failed_reused);
	fprintf(file,
		",\"largest_gap_usec\":%" PRIu64 ",\"largest_gap_at_usec\":%" PRIu64
		",\"start_usec\":%" PRIu64 ",\"duration_usec\":%" PRIu64 ",\"rps\":%.1f}\n",
		report->gap_usec, report->gap_at_usec, report->start_usec, duration,
		(double)report->n_ok * 1e6 / (double)duration);
	fflush(file);
}

void report_live(const struct report *report, const char *path, uint64_t now_usec)
{
	char temporary[4096];
	FILE *file;

	if ((size_t)snprintf(temporary, sizeof(temporary), "%s.new", path) >= sizeof(temporary))
		return;
	file = fopen(temporary, "we");
	if (!file)
		tool_die(2, "%s: %s", temporary, strerror(errno));
	fprintf(file, "{");
	print_common(file, report);
	fprintf(file,
		"\"start_usec\":%" PRIu64 ",\"now_usec\":%" PRIu64 ",\"last_ok_usec\":%" PRIu64
		",\"stopping\":%s}\n",
		report->start_usec, now_usec, report->last_ok_usec,
		report->stop_usec ? "true" : "false");
	if (fclose(file) != 0 || rename(temporary, path) < 0)
		tool_die(2, "%s: %s", path, strerror(errno));
}

void report_interval(struct report *report, uint64_t now_usec)
{
	uint64_t since = report->interval_usec ? report->interval_usec : report->start_usec;

	if (now_usec > since)
		fprintf(stderr,
			"%8.3fs %9.0f ok/s %6" PRIu64 " failed  %" PRIu64 " in all, %" PRIu64
			" failed, generation %" PRIu64 "\n",
			(double)(now_usec - report->start_usec) / 1e6,
			(double)(report->n_ok - report->interval_n_ok) * 1e6 /
				(double)(now_usec - since),
			report->n_failed - report->interval_n_failed, report->n_requests,
			report->n_failed,
			report->generations.n_entries
				? report->generations.entries[report->generations.last].key
				: 0);
	report->interval_usec = now_usec;
	report->interval_n_ok = report->n_ok;
	report->interval_n_failed = report->n_failed;
}

void report_done(struct report *report)
{
	free(report->generations.entries);
	free(report->workers.entries);
	free(report->pids.entries);
	if (report->failures_to)
		fclose(report->failures_to);
}
