/* SPDX-License-Identifier: Apache-2.0 */
#include "varlink/service.h"

int varlink_service_init(struct varlink_service *service, const struct varlink_identity *identity,
	struct error *ret_error)
{
	*service = (struct varlink_service){.identity = *identity};

	int r = varlink_interface_parse(varlink_service_text, &service->service, ret_error);
	if (r >= 0)
		r = varlink_interface_parse(
			varlink_supervisor_text, &service->supervisor, ret_error);
	if (r < 0)
		varlink_service_done(service);
	return r;
}

void varlink_service_done(struct varlink_service *service)
{
	service->service = varlink_interface_free(service->service);
	service->supervisor = varlink_interface_free(service->supervisor);
}

/* An answer whose parameters could not be allocated is -ENOMEM, not an empty one. */
static int answer(struct varlink_answer *ret, const char *error, json_t *parameters_take)
{
	if (!parameters_take)
		return -ENOMEM;
	*ret = (struct varlink_answer){.error = error, .parameters = parameters_take};
	return 1;
}

static int get_info(const struct varlink_service *service, struct varlink_answer *ret)
{
	const struct varlink_identity *who = &service->identity;

	return answer(ret, NULL,
		json_pack("{s:s, s:s, s:s, s:s, s:[s, s]}", "vendor", who->vendor, "product",
			who->product, "version", who->version, "url", who->url, "interfaces",
			service->service->name, service->supervisor->name));
}

static const struct varlink_interface *find_interface(
	const struct varlink_service *service, const char *name, size_t len)
{
	const struct varlink_interface *const all[] = {service->service, service->supervisor};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (strlen(all[i]->name) == len && memcmp(all[i]->name, name, len) == 0)
			return all[i];
	return NULL;
}

static int get_description(
	const struct varlink_service *service, const json_t *parameters, struct varlink_answer *ret)
{
	const char *name = json_string_value(json_object_get(parameters, "interface"));
	const struct varlink_interface *interface = find_interface(service, name, strlen(name));

	if (!interface)
		return answer(
			ret, VARLINK_INTERFACE_NOT_FOUND, json_pack("{s:s}", "interface", name));
	return answer(ret, NULL, json_pack("{s:s}", "description", interface->text));
}

/* "unset" gets one form, so that methods need not know two. */
static void drop_nulls(json_t *object)
{
	const char *key;
	json_t *value;
	void *next;

	json_object_foreach_safe(object, next, key, value) if (json_is_null(value))(void)
		json_object_del(object, key);
}

static int invalid_parameter(char path[static VARLINK_PATH_MAX], struct varlink_answer *ret)
{
	json_t *name;

	/* A path that was cut may end inside a character. */
	while (!(name = json_string(path)) && path[0])
		path[strlen(path) - 1] = '\0';
	return answer(ret, VARLINK_INVALID_PARAMETER, json_pack("{s:o}", "parameter", name));
}

int varlink_service_handle(const struct varlink_service *service, struct varlink_call *call,
	const struct varlink_member **ret_method, struct varlink_answer *ret_answer)
{
	char path[VARLINK_PATH_MAX];
	const char *dot = strrchr(call->method, '.');

	if (!dot)
		return answer(ret_answer, VARLINK_METHOD_NOT_FOUND,
			json_pack("{s:s}", "method", call->method));

	const struct varlink_interface *interface =
		find_interface(service, call->method, (size_t)(dot - call->method));
	if (!interface)
		return answer(ret_answer, VARLINK_INTERFACE_NOT_FOUND,
			json_pack(
				"{s:s%}", "interface", call->method, (size_t)(dot - call->method)));

	const struct varlink_member *method =
		varlink_interface_find(interface, VARLINK_METHOD, dot + 1);
	if (!method)
		return answer(ret_answer, VARLINK_METHOD_NOT_FOUND,
			json_pack("{s:s}", "method", call->method));

	if (!varlink_type_accepts(method->input, call->parameters, path))
		return invalid_parameter(path, ret_answer);
	/* There is no protocol to change to. */
	if (call->upgrade)
		return answer(ret_answer, VARLINK_METHOD_NOT_IMPLEMENTED,
			json_pack("{s:s}", "method", call->method));

	if (interface == service->supervisor) {
		drop_nulls(call->parameters);
		*ret_method = method;
		return 0;
	}
	if (streq(method->name, "GetInfo"))
		return get_info(service, ret_answer);
	return get_description(service, call->parameters, ret_answer);
}

bool varlink_service_accepts_reply(const struct varlink_service *service,
	const struct varlink_member *method, const char *error, const json_t *parameters,
	char ret_path[static VARLINK_PATH_MAX])
{
	const struct varlink_type *type = method->output;

	if (error) {
		const char *dot = strrchr(error, '.');
		const struct varlink_interface *interface =
			dot ? find_interface(service, error, (size_t)(dot - error)) : NULL;
		const struct varlink_member *member =
			interface ? varlink_interface_find(interface, VARLINK_ERROR, dot + 1)
				  : NULL;

		if (!member) {
			(void)snprintf(ret_path, VARLINK_PATH_MAX, "%s", error);
			return false;
		}
		type = member->input;
	}
	return varlink_type_accepts(type, parameters, ret_path);
}
