/* SPDX-License-Identifier: Apache-2.0 */
/* The main file, its includes, and the keys that are not a service's. */
#include "daemon/config_yaml.h"

#include <glob.h>
#include <limits.h>

#include "daemon/config_file.h"
#include "daemon/config_yaml_service.h"

#define error_at(r, node, ...) config_problem_add((r)->problems, (node)->place, false, __VA_ARGS__)

struct loaded { /* a file that was read, so that none is read twice */
	dev_t device;
	ino_t inode;
};

struct loader {
	struct reader reader;
	const char *main_path;
	struct loaded *loaded;
	size_t n_loaded, capacity;
	size_t total; /* bytes */
};

/* --- the keys of a file --------------------------------------------------- */

static int read_services(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	(void)target;
	if (node_is_null(value)) /* `services:` and nothing below it, as a file may begin */
		return 0;
	if (!node_is_map(r, key->name, value))
		return 0;
	for (size_t i = 0; i < value->n; i += 2) {
		int q;

		if (r->config->n_services >= CONFIG_SERVICES_MAX) {
			error_at(r, value->items[i], "more than %d services", CONFIG_SERVICES_MAX);
			return 0;
		}
		q = config_read_service(r, value->items[i], value->items[i + 1]);
		if (q < 0)
			return q;
	}
	return 0;
}

/* Files are included after the main one was read; here it is only checked. */
static int check_include(
	struct reader *r, const struct key *key, const struct node *value, void *target)
{
	const struct node *const *items;
	size_t n;

	(void)target;
	if (!node_items(r, key->name, &value, &items, &n))
		return 0;
	for (size_t i = 0; i < n; i++) {
		const char *text = node_text(r, key->name, items[i]);

		if (text && !*text)
			error_at(r, items[i], "%s: an empty path", key->name);
	}
	return 0;
}

#define AT(field) offsetof(struct control_config, field)
static const struct key control_keys[] = {
	KEY("socket", KEY_TEXT, socket),
	KEY("mode", KEY_MODE, mode, .max = 0777),
	KEY("operators", KEY_LIST, operators),
	KEY("observers", KEY_LIST, observers),
};
#undef AT

static const struct key_table control_table = KEY_TABLE("control", control_keys);
static const char *const terminate_words[] = {"auto", "stop", "detach", NULL};

#define AT(field) offsetof(struct config, field)
static const struct key main_keys[] = {
	KEY_WHOLE("include", KEY_CUSTOM, .read = check_include),
	KEY_WHOLE("services", KEY_CUSTOM, .read = read_services),
	KEY("control", KEY_SECTION, control, .place = AT(control.place), .table = &control_table),
	KEY("on_terminate", KEY_CHOICE, on_terminate, .choices = terminate_words),
};
#undef AT

static const struct key_table main_table = KEY_TABLE("the file", main_keys);

static const struct key included_keys[] = {
	KEY_WHOLE("services", KEY_CUSTOM, .read = read_services),
};

static const char *const main_file_words[] = {"include", "control", "on_terminate"};

/* A copy without what an included file may not have, or what is only there for anchors ("x-...").
 * The items are borrowed. */
static int select_keys(struct reader *r, const struct node *root, struct node *ret)
{
	*ret = *root;
	ret->n = 0;
	ret->items = calloc(root->n + 1, sizeof(struct node *));
	if (!ret->items)
		return -ENOMEM;
	for (size_t i = 0; i < root->n; i += 2) {
		const char *name = root->items[i]->text;
		bool good = !startswith(name, "x-");

		for (size_t j = 0; !r->main_file && j < ARRAY_SIZE(main_file_words); j++) {
			if (!streq(name, main_file_words[j]))
				continue;
			error_at(r, root->items[i], "\"%s\" belongs into the main file", name);
			good = false;
		}
		if (!good)
			continue;
		ret->items[ret->n++] = root->items[i];
		ret->items[ret->n++] = root->items[i + 1];
	}
	return 0;
}

static int read_root(struct reader *r, const struct node *root)
{
	static const struct key_table included_table = KEY_TABLE("an included file", included_keys);
	struct node selected;
	int q;

	if (!root || node_is_null(root))
		return 0;
	if (root->kind != NODE_MAP) {
		error_at(r, root, "the file is a %s; it must be a map that has \"services:\"",
			root->kind == NODE_LIST ? "list" : "single value");
		return 0;
	}
	q = select_keys(r, root, &selected);
	if (q == 0)
		q = keys_read(
			r, &selected, r->main_file ? &main_table : &included_table, r->config);
	free(selected.items);
	return q;
}

/* --- files ---------------------------------------------------------------- */

/* The directory of path, absolute; symbolic links stay, for they are resolved anew for each
 * generation. NULL: out of memory, or no working directory (errno). */
static char *directory_of(const char *path)
{
	_cleanup_free_ char *working = NULL, *absolute = NULL;
	char *slash;

	if (path[0] != '/') {
		working = getcwd(NULL, 0);
		if (!working)
			return NULL;
	}
	absolute = config_path_join(working ? working : "/", path);
	if (!absolute)
		return NULL;
	slash = strrchr(absolute, '/');
	if (slash == absolute)
		slash++;
	*slash = '\0';
	return TAKE_PTR(absolute);
}

static bool is_loaded(const struct loader *l, const struct config_file *f)
{
	for (size_t i = 0; i < l->n_loaded; i++)
		if (l->loaded[i].device == f->device && l->loaded[i].inode == f->inode)
			return true;
	return false;
}

static int remember(struct loader *l, const struct config_file *f)
{
	int r = array_reserve(&l->loaded, &l->capacity, l->n_loaded + 1, sizeof(*l->loaded));

	if (r < 0)
		return r;
	l->loaded[l->n_loaded++] = (struct loaded){.device = f->device, .inode = f->inode};
	l->total += f->len;
	return 0;
}

/* The tree lives as long as what was read from it is looked at; the file's name, in c->files,
 * longer. */
static int parse_file(
	struct loader *l, const char *path, const struct config_file *f, struct yaml_tree *ret)
{
	struct config *c = l->reader.config;
	int r = strv_append(&c->files, path);

	if (r < 0)
		return r;
	r = yaml_tree_read(
		c->files[strv_length(c->files) - 1], f->data, f->len, ret, l->reader.problems);
	return r == -EBADMSG ? 0 : r; /* the problem was added; there is no root then */
}

static int read_tree(
	struct loader *l, const char *path, const struct yaml_tree *tree, bool main_file)
{
	_cleanup_free_ char *directory = directory_of(path);
	int r;

	if (!directory)
		return -errno;
	l->reader.directory = directory;
	l->reader.main_file = main_file;
	r = read_root(&l->reader, tree->root);
	l->reader.directory = NULL;
	return r;
}

static int include_file(struct loader *l, const struct node *item, const char *path)
{
	_cleanup_config_file_ struct config_file f = {0};
	_cleanup_yaml_tree_ struct yaml_tree tree = {0};
	size_t max = MIN((size_t)CONFIG_FILE_MAX, (size_t)CONFIG_TOTAL_MAX - l->total);
	int r = config_file_read(path, max, &f, l->reader.problems);

	if (r == -ENOMEM)
		return r;
	if (r == -EBADMSG)
		return 0;
	if (r < 0) {
		error_at(
			&l->reader, item, "include: \"%s\" cannot be read: %s", path, strerror(-r));
		return 0;
	}
	if (is_loaded(l, &f)) {
		error_at(&l->reader, item, "include: \"%s\" is read twice", path);
		return 0;
	}
	r = remember(l, &f);
	if (r == 0)
		r = parse_file(l, path, &f, &tree);
	if (r == 0)
		r = read_tree(l, path, &tree, false);
	return r;
}

static int path_compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int include_matches(struct loader *l, const struct node *item, glob_t *matches)
{
	/* glob(3) sorts as the locale does; the order of services should not depend on it. */
	qsort(matches->gl_pathv, matches->gl_pathc, sizeof(char *), path_compare);
	for (size_t i = 0; i < matches->gl_pathc; i++) {
		int r;

		if (l->n_loaded >= CONFIG_FILES_MAX) {
			error_at(&l->reader, item, "include: more than %d files", CONFIG_FILES_MAX);
			return 0;
		}
		r = include_file(l, item, matches->gl_pathv[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Relative to the main file, as it was named: messages then name files as the user did. */
static char *include_path(const struct loader *l, const char *pattern)
{
	const char *slash = strrchr(l->main_path, '/');

	if (pattern[0] == '/' || !slash)
		return strdup(pattern);
	return xasprintf("%.*s%s", (int)(slash + 1 - l->main_path), l->main_path, pattern);
}

/* A directory that is not there has no files; one that cannot be read may have some. */
static int on_glob_error(const char *path, int error)
{
	(void)path;
	return error != ENOENT && error != ENOTDIR;
}

static int include_pattern(struct loader *l, const struct node *item)
{
	_cleanup_free_ char *pattern = include_path(l, item->text);
	glob_t matches = {0};
	int r;

	if (!pattern)
		return -ENOMEM;
	r = glob(pattern, 0, on_glob_error, &matches);
	if (r == 0) {
		r = include_matches(l, item, &matches);
	} else if (r == GLOB_NOSPACE) {
		r = -ENOMEM;
	} else if (r == GLOB_NOMATCH) {
		/* conf.d/ may be empty; a file that was named must be there. */
		r = strpbrk(item->text, "*?[") ? 0 : include_file(l, item, pattern);
	} else {
		error_at(&l->reader, item, "include: \"%s\": a directory cannot be read: %s",
			item->text, strerror(errno));
		r = 0;
	}
	globfree(&matches);
	return r;
}

static int include_all(struct loader *l, const struct node *root)
{
	const struct node *include =
		root && root->kind == NODE_MAP ? node_get(root, "include") : NULL;
	const struct node *const *items = &include;
	size_t n = 1;
	int r = 0;

	if (!include || include->kind == NODE_MAP)
		return 0;
	if (include->kind == NODE_LIST) {
		items = (const struct node *const *)include->items;
		n = MIN(include->n, (size_t)CONFIG_LIST_MAX);
	}
	for (size_t i = 0; i < n && r == 0; i++)
		if (items[i]->kind == NODE_SCALAR && items[i]->text[0] && !node_is_null(items[i]))
			r = include_pattern(l, items[i]);
	return r;
}

static int load_content(struct loader *l, const struct config_file *f)
{
	_cleanup_yaml_tree_ struct yaml_tree tree = {0};
	int r = remember(l, f);

	if (r == 0)
		r = parse_file(l, l->main_path, f, &tree);
	if (r == 0)
		r = read_tree(l, l->main_path, &tree, true);
	if (r == 0)
		r = include_all(l, tree.root);
	/* Half a file that was just being written must not end every service. */
	if (r == 0 && (!tree.root || node_is_null(tree.root)) && l->reader.problems->n_errors == 0)
		config_problem_add(l->reader.problems, (struct config_place){.file = l->main_path},
			false, "the file is empty; with \"services: {}\" there are none");
	if (r == 0 && l->reader.config->n_services == 0 && l->reader.problems->n_errors == 0)
		config_problem_add(l->reader.problems, (struct config_place){.file = l->main_path},
			true, "there are no services");
	return r;
}

int config_load(const char *path, struct config **ret, struct config_problems *problems,
	struct error *ret_error)
{
	return config_load_as(path, path, ret, problems, ret_error);
}

int config_load_as(const char *path, const char *as, struct config **ret,
	struct config_problems *problems, struct error *ret_error)
{
	_cleanup_config_ struct config *c = config_new();
	_cleanup_config_file_ struct config_file f = {0};
	struct loader l = {
		.reader = {.config = c, .problems = problems},
		       .main_path = as
	      };
	int r;

	if (!c)
		return error_set(ret_error, -ENOMEM, "%s: out of memory", path);
	r = config_file_read(path, CONFIG_FILE_MAX, &f, problems);
	if (r < 0 && r != -EBADMSG)
		return error_set_errno(ret_error, r, "%s cannot be read", path);
	if (r == 0)
		r = load_content(&l, &f);
	else
		r = strv_append(&c->files, as);
	free(l.loaded);
	if (r < 0)
		return error_set_errno(ret_error, r, "%s cannot be read", path);
	*ret = TAKE_PTR(c);
	return 0;
}
