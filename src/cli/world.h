/* The verbs of `dojo world` with files of their own; cmd_world.c chooses. argv[0] is "world". */
#ifndef DOJO_CLI_WORLD_H
#define DOJO_CLI_WORLD_H

int dj__world_events(int argc, char **argv);

#endif
