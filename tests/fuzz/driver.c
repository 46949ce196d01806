/* driver.c - runs a libFuzzer target over files and folders, for compilers without libFuzzer and for `make check`. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned g_files_count;

static int
run_file(const char *path)
{
	FILE *file = fopen(path, "rb");
	uint8_t *data;
	long size;

	if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (size = ftell(file)) < 0) {
		perror(path);
		return 1;
	}
	rewind(file);
	/* Exactly as large as the input, so that the sanitizer sees the first byte too many. */
	data = malloc(size == 0 ? 1 : (size_t)size);
	if (data == NULL || fread(data, 1, (size_t)size, file) != (size_t)size) {
		perror(path);
		return 1;
	}
	fclose(file);
	LLVMFuzzerTestOneInput(data, (size_t)size);
	free(data);
	g_files_count++;
	return 0;
}

static int
run_path(const char *path)
{
	struct stat st;
	struct dirent *entry;
	char name[4096];
	int rc = 0;
	DIR *dir;

	if (stat(path, &st) != 0) {
		perror(path);
		return 1;
	}
	if (!S_ISDIR(st.st_mode)) {
		return run_file(path);
	}
	dir = opendir(path);
	if (dir == NULL) {
		perror(path);
		return 1;
	}
	while (rc == 0 && (entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] != '.') {
			snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
			rc = run_path(name);
		}
	}
	closedir(dir);
	return rc;
}

int
main(int argc, char **argv)
{
	int rc = argc < 2;

	for (int i = 1; rc == 0 && i < argc; i++) {
		rc = run_path(argv[i]);
	}
	fprintf(stderr, "%u inputs\n", g_files_count);
	return rc != 0 || g_files_count == 0;
}
