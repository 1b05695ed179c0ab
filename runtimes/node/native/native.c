// What a bootstrap of Node.js needs of the process and JavaScript can't reach. It is loaded as an
// addon of Node-API, whose symbols and OpenSSL's are those of the node program itself; it is linked
// to no library, so that one file serves every Node.js, with whatever C library.
#include <stddef.h>

#include "zygote.h"

typedef struct napi_env__ *napi_env;
typedef struct napi_value__ *napi_value;
typedef struct napi_callback_info__ *napi_callback_info;
typedef napi_value (*napi_callback)(napi_env, napi_callback_info);

int napi_create_function(napi_env, const char *, size_t, napi_callback, void *, napi_value *);
int napi_set_named_property(napi_env, napi_value, const char *, napi_value);
int napi_get_cb_info(napi_env, napi_callback_info, size_t *, napi_value *, napi_value *, void **);
int napi_get_buffer_info(napi_env, napi_value, void **, size_t *);
int napi_get_boolean(napi_env, _Bool, napi_value *);
int napi_create_int32(napi_env, s32, napi_value *);
int napi_create_string_utf8(napi_env, const char *, size_t, napi_value *);
int napi_get_uv_event_loop(napi_env, void **);

// Of libuv.
__attribute__((weak)) void uv_update_time(void *loop);

// Of OpenSSL 1.1 and 3. A Node.js that keeps them to itself has none for us.
__attribute__((weak)) void RAND_add(const void *buf, int num, double randomness);
__attribute__((weak)) int RAND_status(void);

// Of V8, by the names that C++ gives them: the generator that new contexts seed their Math.random
// from, and objects their hashes.
__attribute__((weak)) void *v8_isolate(void) __asm__("_ZN2v87Isolate10GetCurrentEv");
__attribute__((weak)) void *v8_random(void *isolate) __asm__("_ZN2v88internal7Isolate23random_number_generatorEv");
__attribute__((weak)) void v8_seed(void *random, s64 seed) __asm__("_ZN2v84base21RandomNumberGenerator7SetSeedEl");
__attribute__((weak)) int v8_hash(void *name) __asm__("_ZN2v84Name15GetIdentityHashEv");

static int argument(napi_env env, napi_callback_info info, napi_value *value)
{
	size_t argc = 1;
	return napi_get_cb_info(env, info, &argc, value, NULL, NULL) == 0 && argc == 1;
}

static napi_value boolean(napi_env env, _Bool b)
{
	napi_value result = NULL;
	napi_get_boolean(env, b, &result);
	return result;
}

// reseed(buffer) gives OpenSSL's generators a new start from the kernel and the buffer, and says
// whether it could. To add to the primary generator seeds it anew from both; those of the threads
// see that it was and follow before they next give anything. A process whose memory was put back
// has the pid it had, so that OpenSSL itself sees no reason to.
static napi_value reseed(napi_env env, napi_callback_info info)
{
	size_t size = 0;
	napi_value value;
	void *data = NULL;
	_Bool done = 0;

	if (RAND_add && RAND_status && argument(env, info, &value) &&
	    napi_get_buffer_info(env, value, &data, &size) == 0 && size > 0 && size <= 4096) {
		RAND_add(data, (int)size, (double)size);
		done = RAND_status() == 1;
	}
	return boolean(env, done);
}

// scatter(buffer) seeds V8's own generator with the buffer's first eight bytes, and says whether it
// could.
static napi_value scatter(napi_env env, napi_callback_info info)
{
	size_t size = 0;
	napi_value value;
	void *data = NULL, *isolate, *random = NULL;
	s64 seed;

	if (v8_isolate && v8_random && v8_seed && argument(env, info, &value) &&
	    napi_get_buffer_info(env, value, &data, &size) == 0 && size >= 8 &&
	    (isolate = v8_isolate()) != NULL && (random = v8_random(isolate)) != NULL) {
		memcpy(&seed, data, sizeof seed);
		v8_seed(random, seed);
	}
	return boolean(env, random != NULL);
}

// hash(string) returns V8's hash of a string, which depends on a seed that V8 draws once for a
// process; undefined if it can't be had.
static napi_value hash(napi_env env, napi_callback_info info)
{
	napi_value value, result = NULL;

	if (v8_hash && argument(env, info, &value))
		napi_create_int32(env, v8_hash(value), &result); // a value of Node-API is V8's reference to it
	return result;
}

// fork(objects) makes this process a zygote that does what it is told on descriptor 3. It returns in
// each child, undefined; or here, a text that says why it can't be. After that the process, of which
// some threads may stand still, has to be ended by refuse.
static napi_value fork_(napi_env env, napi_callback_info info)
{
	size_t size = 0;
	napi_value value, result = NULL;
	void *data = NULL, *loop = NULL;
	const char *why = "it can't be told what it has open";

	if (argument(env, info, &value) && napi_get_buffer_info(env, value, &data, &size) == 0 &&
	    size % sizeof *objects == 0 && size <= sizeof objects) {
		memcpy(objects, data, size);
		nobjects = (u32)(size / sizeof *objects);
		why = ready_to_fork();
	}
	if (why) {
		napi_create_string_utf8(env, why, (size_t)length(why), &result);
		return result;
	}
	tell(KIND_READY, 0, 0, 0, 0, -1, 0, 0);
	serve_forks();
	if (uv_update_time && napi_get_uv_event_loop(env, &loop) == 0)
		uv_update_time(loop); // which stood still
	return result;
}

// refuse(buffer) tells the host why this process is no zygote, and ends it.
static napi_value refuse(napi_env env, napi_callback_info info)
{
	size_t size = 0;
	napi_value value;
	void *data = NULL;

	if (argument(env, info, &value) && napi_get_buffer_info(env, value, &data, &size) == 0)
		tell(KIND_READY, 0, 0, ENOSYS, 0, -1, data, size > 900 ? 900 : size);
	sys(__NR_exit_group, 1);
	return NULL;
}

__attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports)
{
	static const struct { const char *name; napi_callback call; } all[] = {
		{"reseed", reseed}, {"scatter", scatter}, {"hash", hash}, {"fork", fork_}, {"refuse", refuse},
	};
	napi_value f;

	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (napi_create_function(env, all[i].name, (size_t)length(all[i].name), all[i].call, NULL, &f) == 0)
			napi_set_named_property(env, exports, all[i].name, f);
	return exports;
}
