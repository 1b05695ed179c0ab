// What a bootstrap of Node.js needs of the process and JavaScript can't reach. It is loaded as an
// addon of Node-API, whose symbols and OpenSSL's are those of the node program itself; it is linked
// to no library, so that one file serves every Node.js, with whatever C library.
#include <stddef.h>

typedef struct napi_env__ *napi_env;
typedef struct napi_value__ *napi_value;
typedef struct napi_callback_info__ *napi_callback_info;
typedef napi_value (*napi_callback)(napi_env, napi_callback_info);

int napi_create_function(napi_env, const char *, size_t, napi_callback, void *, napi_value *);
int napi_set_named_property(napi_env, napi_value, const char *, napi_value);
int napi_get_cb_info(napi_env, napi_callback_info, size_t *, napi_value *, napi_value *, void **);
int napi_get_buffer_info(napi_env, napi_value, void **, size_t *);
int napi_get_boolean(napi_env, _Bool, napi_value *);

// Of OpenSSL 1.1 and 3. A Node.js that keeps them to itself has none for us.
__attribute__((weak)) void RAND_add(const void *buf, int num, double randomness);
__attribute__((weak)) int RAND_status(void);

// reseed(buffer) gives OpenSSL's generators a new start from the kernel and the buffer, and says
// whether it could. To add to the primary generator seeds it anew from both; those of the threads
// see that it was and follow before they next give anything. A process whose memory was put back
// has the pid it had, so that OpenSSL itself sees no reason to.
static napi_value reseed(napi_env env, napi_callback_info info)
{
	size_t argc = 1, length = 0;
	napi_value argument, result = NULL;
	void *data = NULL;
	_Bool done = 0;

	if (RAND_add && RAND_status &&
	    napi_get_cb_info(env, info, &argc, &argument, NULL, NULL) == 0 && argc == 1 &&
	    napi_get_buffer_info(env, argument, &data, &length) == 0 && length > 0 && length <= 4096) {
		RAND_add(data, (int)length, (double)length);
		done = RAND_status() == 1;
	}
	napi_get_boolean(env, done, &result);
	return result;
}

__attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env, napi_value exports)
{
	napi_value f;

	if (napi_create_function(env, "reseed", 6, reseed, NULL, &f) == 0)
		napi_set_named_property(env, exports, "reseed", f);
	return exports;
}
