/* SPDX-License-Identifier: Apache-2.0 */
/* The part of base/parse.h that is about words: command lines, and guesses at misspelt ones. */
#include "base/parse.h"

/* Longer words are not typing errors of ours. */
#define NEAREST_MAX_LENGTH 64

struct splitter {
	const char *s;
	size_t position;
	char *word; /* room for all that is left; owned */
	size_t len;
};

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void add_char(struct splitter *sp, char c)
{
	sp->word[sp->len++] = c;
}

/* At the character behind the opening '; to the one behind the closing. */
static int split_single_quoted(struct splitter *sp)
{
	size_t open = sp->position - 1;

	for (; sp->s[sp->position]; sp->position++) {
		if (sp->s[sp->position] == '\'') {
			sp->position++;
			return 0;
		}
		add_char(sp, sp->s[sp->position]);
	}
	sp->position = open;
	return -EINVAL;
}

/* As a shell has it: inside "..." a backslash only quotes what would be special there. */
static int split_double_quoted(struct splitter *sp)
{
	size_t open = sp->position - 1;

	while (sp->s[sp->position]) {
		char c = sp->s[sp->position], next;

		if (c == '"') {
			sp->position++;
			return 0;
		}
		if (c == '$' || c == '`')
			return -EOPNOTSUPP;
		sp->position++;
		next = sp->s[sp->position];
		if (c == '\\' && next != '\0' && strchr("$`\"\\\n", next)) {
			if (next != '\n')
				add_char(sp, next);
			sp->position++;
		} else {
			add_char(sp, c);
		}
	}
	sp->position = open;
	return -EINVAL;
}

static int split_backslash(struct splitter *sp)
{
	char next = sp->s[sp->position + 1];

	if (next == '\0')
		return -EINVAL;
	/* A backslash before a line's end joins the lines. */
	if (next != '\n')
		add_char(sp, next);
	sp->position += 2;
	return 0;
}

static int split_one(struct splitter *sp)
{
	size_t begin = sp->position;
	int r;

	while (sp->s[sp->position] && !is_blank(sp->s[sp->position])) {
		char c = sp->s[sp->position];

		if (c == '\'' || c == '"') {
			sp->position++;
			r = c == '"' ? split_double_quoted(sp) : split_single_quoted(sp);
			if (r < 0)
				return r;
		} else if (c == '\\') {
			r = split_backslash(sp);
			if (r < 0)
				return r;
		} else if (strchr("|&;<>()$`", c) ||
			   ((c == '#' || c == '~') && sp->position == begin)) {
			return -EOPNOTSUPP;
		} else {
			add_char(sp, c);
			sp->position++;
		}
	}
	return 0;
}

int split_words(const char *s, char ***ret_words, size_t *ret_position)
{
	_cleanup_strv_ char **words = calloc(1, sizeof(char *));
	_cleanup_free_ char *room = malloc(strlen(s) + 1);
	struct splitter sp = {.s = s, .word = room};
	int r;

	if (!words || !room)
		return -ENOMEM;
	for (;;) {
		/* Joined lines between words leave nothing behind, not an empty word. */
		while (is_blank(s[sp.position]) || startswith(s + sp.position, "\\\n"))
			sp.position += s[sp.position] == '\\' ? 2 : 1;
		if (!s[sp.position])
			break;
		sp.len = 0;
		r = split_one(&sp);
		if (r < 0) {
			if (ret_position)
				*ret_position = sp.position;
			return r;
		}
		r = strv_append_take(&words, strndup(room, sp.len));
		if (r < 0)
			return r;
	}
	*ret_words = TAKE_PTR(words);
	return 0;
}

/* The edits between a and b: a character more, less, another, or two swapped (in three rolling
 * rows). Case does not count, nor does '-' for '_'. */
static size_t edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
	size_t rows[3][NEAREST_MAX_LENGTH + 1];
	size_t *before = rows[0], *last = rows[1], *now = rows[2], *spare;

	for (size_t j = 0; j <= b_len; j++)
		last[j] = j;
	for (size_t i = 1; i <= a_len; i++) {
		now[0] = i;
		for (size_t j = 1; j <= b_len; j++) {
			size_t cost = a[i - 1] == b[j - 1] ? 0 : 1;

			now[j] = MIN(MIN(last[j], now[j - 1]) + 1, last[j - 1] + cost);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				now[j] = MIN(now[j], before[j - 2] + 1);
		}
		spare = before;
		before = last;
		last = now;
		now = spare;
	}
	return last[b_len];
}

/* Into ret; 0 when s is too long to be guessed at. */
static size_t fold_word(const char *s, char ret[static NEAREST_MAX_LENGTH])
{
	size_t len = strlen(s);

	if (len > NEAREST_MAX_LENGTH)
		return 0;
	for (size_t i = 0; i < len; i++) {
		if (s[i] == '-')
			ret[i] = '_';
		else
			ret[i] = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] - 'A' + 'a') : s[i];
	}
	return len;
}

const char *nearest_word(const char *word, const char *const *known)
{
	char a[NEAREST_MAX_LENGTH], b[NEAREST_MAX_LENGTH];
	size_t a_len = fold_word(word, a), best_distance = SIZE_MAX;
	const char *best = NULL;

	if (a_len == 0)
		return NULL;
	for (; *known; known++) {
		size_t b_len = fold_word(*known, b), distance, near;

		if (b_len == 0)
			continue;
		distance = edit_distance(a, a_len, b, b_len);
		/* One edit in three characters at most, else any short word is near any other. */
		near = MAX(MAX(a_len, b_len) / 3, (size_t)1);
		if (distance <= near && distance < MAX(a_len, b_len) && distance < best_distance) {
			best = *known;
			best_distance = distance;
		}
	}
	return best;
}
