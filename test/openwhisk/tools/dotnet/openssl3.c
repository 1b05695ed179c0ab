/*
 * libssl.so.1.1 for the compiler of .NET Core 3.1 on a machine that has OpenSSL 3 alone: what the compiler
 * asks for is there, three functions under other names.
 */
extern int EVP_MD_get_size(const void *);
extern void *SSL_get1_peer_certificate(const void *);

int EVP_MD_size(const void *md) { return EVP_MD_get_size(md); }

void *SSL_get_peer_certificate(const void *ssl) { return SSL_get1_peer_certificate(ssl); }

void ERR_put_error(int lib, int func, int reason, const char *file, int line)
{
	(void)lib, (void)func, (void)reason, (void)file, (void)line;
}
