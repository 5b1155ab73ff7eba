# Several origins of one Redis: `headwater edge varnish` puts this text behind the backend of
# headwater.vcl when it gets more than one --origin. All origins of a Redis send the same bytes, so
# each of them may answer every request.

# An origin that drains or lacks its store answers /readyz with 503, and gets no request after two
# such answers. Let the origin's --drain-delay be longer than that (5s).
probe headwater_ready {
    .url = "/readyz";
    .interval = 1s;
    .timeout = 1s;
    .window = 3;
    .threshold = 2;
    .initial = 2;
}

# The backends stand here.

sub vcl_init {
    # All requests for a channel, also for its history and its state, go to one origin while that
    # origin is ready.
    new headwater_origins = directors.shard();
    headwater_origins.add_backend(headwater);
    headwater_origins.reconfigure();
    # WebSockets have one path for all channels.
    new headwater_sockets = directors.round_robin();
    headwater_sockets.add_backend(headwater);
}

sub vcl_backend_fetch {
    set bereq.backend = headwater_origins.backend(by=KEY,
        key=headwater_origins.key(regsub(bereq.url, "^(/channels/[^/?]*)?.*$", "\1")), alt=bereq.retries);
}

# A request for a stream, the history or the state that one origin has not answered goes to another
# origin once. A publish is never repeated here, because it may be stored.
sub vcl_backend_error {
    if (bereq.http.Headwater-Path && bereq.retries == 0) {
        return (retry);
    }
}

sub vcl_pipe {
    set bereq.backend = headwater_sockets.backend();
}
