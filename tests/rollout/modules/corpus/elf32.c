/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A module's entry point and nothing else: it builds for machines whose libraries are not there. */

int RedisModule_OnLoad(void *ctx, void **argv, int argc) {
    (void)ctx;
    (void)argv;
    (void)argc;
    return 0;
}
