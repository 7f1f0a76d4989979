/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/control_methods.h"
#include "daemon/listener_options.h"

json_t *control_json_options(const struct listener *l)
{
	struct listener_option_report *list = NULL;
	json_t *array = json_array();
	size_t n = 0;

	if (listener_options_report(l, &list, &n) < 0)
		return array;
	for (size_t i = 0; array && i < n; i++)
		json_array_append_new(
			array, json_pack("{s:s, s:s, s:o, s:o, s:o}", "key", list[i].key, "name",
				       list[i].name, "wanted", control_json_text(list[i].wanted),
				       "actual", control_json_text(list[i].actual), "note",
				       control_json_text(list[i].note)));
	listener_options_report_free(list, n);
	return array;
}
