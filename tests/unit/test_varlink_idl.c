/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"
#include "varlink/idl.h"
#include "varlink/message.h"

static struct varlink_interface *parsed(const char *text)
{
	struct varlink_interface *interface = NULL;
	_cleanup_error_ struct error error = ERROR_NULL;
	int r = varlink_interface_parse(text, &interface, &error);

	ck_assert_msg(r == 0, "%s", error_message(&error));
	return interface;
}

static size_t count(const struct varlink_interface *interface, enum varlink_member_kind kind)
{
	size_t n = 0;

	for (const struct varlink_member *m = interface->members; m; m = m->next)
		n += m->kind == kind;
	return n;
}

START_TEST(own_texts)
{
	_cleanup_varlink_interface_ struct varlink_interface *service =
								     parsed(varlink_service_text),
							     *supervisor = parsed(
								     varlink_supervisor_text);

	ck_assert_str_eq(service->name, "org.varlink.service");
	ck_assert_uint_eq(count(service, VARLINK_METHOD), 2);
	ck_assert_uint_eq(count(service, VARLINK_ERROR), 6);
	ck_assert_str_eq(supervisor->name, "io.tenured.Supervisor");
	ck_assert_ptr_eq(supervisor->text, varlink_supervisor_text);

	static const char *const methods[] = {"List", "Listeners", "Events", "Diff", "History",
		"Upgrade", "Promote", "Pause", "Rollback", "Abort", "Scale", "Restart", "Start",
		"Stop", "Reload"};
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
		ck_assert_msg(
			varlink_interface_find(supervisor, VARLINK_METHOD, methods[i]) != NULL,
			"%s", methods[i]);
	ck_assert_ptr_null(varlink_interface_find(supervisor, VARLINK_ERROR, "List"));
	ck_assert_ptr_nonnull(varlink_interface_find(supervisor, VARLINK_ERROR, "NoSuchService"));
	/* Used before it is declared. */
	ck_assert_ptr_nonnull(varlink_interface_find(supervisor, VARLINK_TYPE, "Problem"));
}
END_TEST

START_TEST(grammar)
{
	static const char text[] =
		"# A comment\n"
		"\n"
		"interface a-b.c0.D # and one more\n"
		"type E (one, two_x , three)\n"
		"\ttype S (# here too\n"
		"  a: ?[]int, b: [string]?E,\r\n"
		"  c: (x: bool, y: ?(u, v)), s: ?S, interface: string, string: object)\n"
		"type Empty ()\n"
		"method M(a: S) -> ()\n"
		"error Oh(why: float)";
	_cleanup_varlink_interface_ struct varlink_interface *interface = parsed(text);

	ck_assert_str_eq(interface->name, "a-b.c0.D");
	const struct varlink_member *e = varlink_interface_find(interface, VARLINK_TYPE, "E");
	ck_assert_int_eq(e->input->kind, VARLINK_ENUM);
	ck_assert_str_eq(e->input->fields->next->name, "two_x");

	const struct varlink_field *a =
		varlink_interface_find(interface, VARLINK_TYPE, "S")->input->fields;
	ck_assert_int_eq(a->type->kind, VARLINK_ARRAY);
	ck_assert(a->type->nullable && !a->type->element->nullable);
	ck_assert_int_eq(a->type->element->kind, VARLINK_INT);
	const struct varlink_field *b = a->next;
	ck_assert_int_eq(b->type->kind, VARLINK_DICT);
	ck_assert(!b->type->nullable && b->type->element->nullable);
	ck_assert_ptr_eq(b->type->element->element, e->input);
	ck_assert_int_eq(b->next->type->fields->next->type->kind, VARLINK_ENUM);

	const struct varlink_member *empty =
		varlink_interface_find(interface, VARLINK_TYPE, "Empty");
	ck_assert_int_eq(empty->input->kind, VARLINK_STRUCT);
	ck_assert_ptr_null(empty->input->fields);
	const struct varlink_member *m = varlink_interface_find(interface, VARLINK_METHOD, "M");
	ck_assert_ptr_null(m->output->fields);
	ck_assert_ptr_null(m->next->next);
}
END_TEST

START_TEST(texts_that_are_wrong)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		{"",					 "line 1: the text must begin"	  },
		{"type X (a: int)\n",			      "line 1: the text must begin"   },
		{"interfacea.b\n",			   "line 1: the text must begin"	},
		{"interface a\n",				  "line 1: an interface's name"   },
		{"interface a.\n",			   "line 1: an interface's name"	},
		{"interface .a\n",			   "line 1: an interface's name"	},
		{"interface a..b\n",			     "line 1: an interface's name"	  },
		{"interface a-.b\n",			     "line 1: an interface's name"	  },
		{"interface a.-b\n",			     "line 1: an interface's name"	  },
		{"interface a.b-\n",			     "line 1: an interface's name"	  },
		{"interface 1.b\n",			    "line 1: an interface's name"	 },
		{"interface a.b type X ()\n",		      "line 1: a line end"		  },
		{"interface a.b\ntype x ()\n",	       "line 2: a name that begins"	   },
		{"interface a.b\ntype X_Y ()\n",		 "line 2: a name that begins"    },
		{"interface a.b\nmethod X ()\n",		 "line 3: \"->\" is expected"    },
		{"interface a.b\nmethod X () -> (a, b)\n",   "line 2: \"a\" should have"     },
		{"interface a.b\nmethod X (a) -> ()\n",	"line 2: \"a\" should have"	   },
		{"interface a.b\ntype X (a: int, b)\n",	"line 2: \"b\" should have"	   },
		{"interface a.b\ntype X (a, b: int)\n",	"line 2: \"b\" should not"	  },
		{"interface a.b\ntype X (a: int\n",	    "line 3: \")\" is expected"     },
		{"interface a.b\ntype X (a: int,)\n",	      "line 2: a field's name"	      },
		{"interface a.b\ntype X (_a: int)\n",	      "line 2: a field's name"	      },
		{"interface a.b\ntype X (a_: int)\n",	      "line 2: a field's name"	      },
		{"interface a.b\ntype X (a__b: int)\n",	"line 2: a field's name"	},
		{"interface a.b\ntype X (1a: int)\n",	      "line 2: a field's name"	      },
		{"interface a.b\ntype X (a: integer)\n",	 "line 2: a name that begins"    },
		{"interface a.b\ntype X (a: ??int)\n",       "line 2: a name that begins"	   },
		{"interface a.b\n\n\ntype X (a: Y)\n",       "line 4: there is no type \"Y\""},
		{"interface a.b\ntype X (a: int, a: int)\n", "line 2: \"a\" is there twice"  },
		{"interface a.b\ntype X ()\nerror X ()\n",   "line 3: \"X\" is there twice"	 },
		{"interface a.b\nenum X ()\n",	       "line 2: type, method or error" },
		{"interface a.b\ntype X () type Y ()\n",	 "line 2: a line end"	     },
		{"interface a.b\n\ntype X () garbage\n",	 "line 3: a line end"	     },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct varlink_interface *interface = NULL;
		_cleanup_error_ struct error error = ERROR_NULL;

		ck_assert_msg(varlink_interface_parse(cases[i].text, &interface, &error) == -EINVAL,
			"<%s> was taken", cases[i].text);
		ck_assert_ptr_null(interface);
		ck_assert_msg(startswith(error_message(&error), cases[i].message) != NULL,
			"<%s>: %s, not %s", cases[i].text, error_message(&error), cases[i].message);
	}
}
END_TEST

START_TEST(nesting_is_bounded)
{
	_cleanup_free_ char *many = calloc(1, 200100);
	struct varlink_interface *interface = NULL;

	strcpy(many, "interface a.b\ntype X (a: ");
	memset(many + strlen(many), '[', 100000);
	ck_assert_int_eq(varlink_interface_parse(many, &interface, NULL), -EINVAL);
	strcpy(many, "interface a.b\ntype X (a: ");
	for (size_t i = 0; i < 50000; i++)
		memcpy(many + strlen("interface a.b\ntype X (a: ") + 2 * i, "[]", 3);
	ck_assert_int_eq(varlink_interface_parse(many, &interface, NULL), -EINVAL);
}
END_TEST

static void check(const struct varlink_interface *interface, const char *type, const char *text,
	const char *bad_path)
{
	_cleanup_json_ json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
	char path[VARLINK_PATH_MAX];
	bool good;

	ck_assert_msg(json != NULL, "%s", text);
	good = varlink_type_accepts(
		varlink_interface_find(interface, VARLINK_TYPE, type)->input, json, path);
	ck_assert_msg(good == !bad_path, "%s as %s: %s", text, type, good ? "taken" : path);
	if (bad_path)
		ck_assert_str_eq(path, bad_path);
}

START_TEST(values)
{
	_cleanup_varlink_interface_ struct varlink_interface *i =
		parsed("interface a.b\n"
		       "type E (one, two)\n"
		       "type P (b: ?bool, i: ?int, f: ?float, s: ?string, o: ?object, e: ?E)\n"
		       "type R (name: string, list: ?[]R, dict: ?[string]int)\n");

	check(i, "P", "{}", NULL);
	check(i, "P", "{\"b\":null,\"e\":null}", NULL);
	check(i, "P", "{\"b\":true,\"i\":-1,\"f\":2,\"s\":\"\",\"o\":{\"x\":[1]},\"e\":\"two\"}",
		NULL);
	check(i, "P", "{\"f\":2.5}", NULL);
	check(i, "P", "{\"b\":1}", "b");
	check(i, "P", "{\"i\":1.0}", "i");
	check(i, "P", "{\"i\":\"1\"}", "i");
	check(i, "P", "{\"f\":\"1\"}", "f");
	check(i, "P", "{\"s\":1}", "s");
	check(i, "P", "{\"o\":[]}", "o");
	check(i, "P", "{\"e\":\"three\"}", "e");
	check(i, "P", "{\"e\":1}", "e");
	check(i, "P", "{\"x\":null}", "x");
	check(i, "P", "{\"b\":true,\"extra\":1}", "extra");
	check(i, "P", "[]", "");
	check(i, "P", "null", "");
	check(i, "E", "\"one\"", NULL);
	check(i, "E", "\"\"", "");
	check(i, "R", "{}", "name");
	check(i, "R", "{\"name\":null}", "name");
	check(i, "R", "{\"name\":\"a\",\"list\":[]}", NULL);
	check(i, "R", "{\"name\":\"a\",\"list\":[null]}", "list[0]");
	check(i, "R", "{\"name\":\"a\",\"list\":{}}", "list");
	check(i, "R",
		"{\"name\":\"a\",\"list\":[{\"name\":\"b\"},{\"name\":\"c\",\"list\":[{\"name\":1}]"
		"}]}",
		"list[1].list[0].name");
	check(i, "R", "{\"name\":\"a\",\"dict\":{\"x\":1,\"y\":2}}", NULL);
	check(i, "R", "{\"name\":\"a\",\"dict\":{\"x\":1,\"y\":\"2\"}}", "dict.y");
	check(i, "R", "{\"name\":\"a\",\"dict\":[1]}", "dict");
}
END_TEST

START_TEST(long_paths_are_cut)
{
	_cleanup_varlink_interface_ struct varlink_interface *i =
		parsed("interface a.b\ntype X ()\n");
	char text[1000] = "{\"", path[VARLINK_PATH_MAX];

	memset(text + 2, 'n', 900);
	strcpy(text + 902, "\":1}");
	_cleanup_json_ json_t *json = json_loads(text, 0, NULL);
	ck_assert(!varlink_type_accepts(i->members->input, json, path));
	ck_assert_uint_eq(strlen(path), VARLINK_PATH_MAX - 1);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {own_texts, grammar, texts_that_are_wrong, nesting_is_bounded,
		values, long_paths_are_cut};

	return run_tests("varlink_idl", tests, ARRAY_SIZE(tests));
}
