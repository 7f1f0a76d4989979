/* SPDX-License-Identifier: Apache-2.0 */
/* Given to the compiler before each source that goes into libtenure: what base/ and wire/ define
 * has names of its own there. In the shared library they are hidden anyway; a program that links
 * the static one may have a function of that name itself. tests/check-abi.sh finds what is missing.
 */
#pragma once

#define address_equal tenure_own_address_equal
#define address_family tenure_own_address_family
#define address_format tenure_own_address_format
#define address_from_sockaddr tenure_own_address_from_sockaddr
#define address_is_broadcast tenure_own_address_is_broadcast
#define address_is_multicast tenure_own_address_is_multicast
#define address_is_unix tenure_own_address_is_unix
#define address_is_wildcard tenure_own_address_is_wildcard
#define address_loopback_of tenure_own_address_loopback_of
#define address_overlaps tenure_own_address_overlaps
#define address_parse tenure_own_address_parse
#define address_parse_ip tenure_own_address_parse_ip
#define address_port tenure_own_address_port
#define address_socket_type tenure_own_address_socket_type
#define array_reserve tenure_own_array_reserve
#define channel_format tenure_own_channel_format
#define channel_kind_to_string tenure_own_channel_kind_to_string
#define channel_name_valid tenure_own_channel_name_valid
#define channel_parse tenure_own_channel_parse
#define close_fd tenure_own_close_fd
#define format_duration tenure_own_format_duration
#define format_percent tenure_own_format_percent
#define format_size tenure_own_format_size
#define parse_bool tenure_own_parse_bool
#define parse_duration tenure_own_parse_duration
#define parse_mode tenure_own_parse_mode
#define parse_percent tenure_own_parse_percent
#define parse_size tenure_own_parse_size
#define parse_u64 tenure_own_parse_u64
#define parse_uint tenure_own_parse_uint
#define split_words tenure_own_split_words
#define startswith tenure_own_startswith
#define strv_append tenure_own_strv_append
#define strv_append_take tenure_own_strv_append_take
#define strv_copy tenure_own_strv_copy
#define strv_env_get tenure_own_strv_env_get
#define strv_env_set tenure_own_strv_env_set
#define strv_equal tenure_own_strv_equal
#define strv_free tenure_own_strv_free
#define strv_length tenure_own_strv_length
#define utf8_char_length tenure_own_utf8_char_length
#define utf8_print tenure_own_utf8_print
#define utf8_printable tenure_own_utf8_printable
#define utf8_valid tenure_own_utf8_valid
#define xasprintf tenure_own_xasprintf
#define channel_send tenure_own_channel_send
#define notify_open tenure_own_notify_open
#define notify_send tenure_own_notify_send
#define number_from_environment tenure_own_number_from_environment
#define passed_free tenure_own_passed_free
#define passed_list_add_take tenure_own_passed_list_add_take
#define passed_list_remove tenure_own_passed_list_remove
#define passed_new tenure_own_passed_new
#define passed_read tenure_own_passed_read
#define send_with_fds tenure_own_send_with_fds
