/* A web server for the images of critest that stands in for nginx and httpd.
 *
 *     webserver PORT TEXT [TITLE PIDFILE]
 *
 * Answers every request with TEXT and logs it. TITLE replaces the command line, as nginx does, and PIDFILE gets the pid.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_in6 address = { .sin6_family = AF_INET6 };
	char request[4096];
	const char *text = strdup(argv[2]);
	int on = 1, listener = socket(AF_INET6, SOCK_STREAM, 0);

	address.sin6_port = htons(atoi(argv[1]));
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 64)) {
		perror("webserver");
		return 1;
	}
	if (argc > 4) {
		char *title = strdup(argv[3]), *end = argv[argc - 1] + strlen(argv[argc - 1]);
		FILE *file = fopen(argv[4], "w");

		fprintf(file, "%d\n", getpid());
		fclose(file);
		memset(argv[0], 0, end - argv[0]);
		strncpy(argv[0], title, end - argv[0] - 1);
	}
	printf("webserver: ready, like httpd -D FOREGROUND\n");
	fflush(stdout);
	for (;;) {
		int client = accept(listener, NULL, NULL);

		if (client < 0)
			continue;
		if (read(client, request, sizeof request) > 0)
			dprintf(client, "HTTP/1.0 200 OK\r\nContent-Length: %zu\r\nContent-Type: text/html\r\n\r\n%s",
				strlen(text), text);
		shutdown(client, SHUT_WR);
		close(client);
	}
}
