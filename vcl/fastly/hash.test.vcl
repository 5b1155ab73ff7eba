// Promises of hash.vcl: what tells two answers apart.
// Each runs the whole vcl_hash of main.vcl.

// @scope: hash
// @suite: the cursor is part of a stream's key
sub test_hash_cursor {
  set req.url = "/channels/a";
  set req.http.Headwater-Path = "stream";
  unset req.http.Last-Event-ID;
  testing.call_subroutine("vcl_hash");
  assert.not_contains(req.hash, "#1-0");
  set req.http.Last-Event-ID = "1-0";
  testing.call_subroutine("vcl_hash");
  assert.contains(req.hash, "#1-0");
  assert.state(hash);
}

// @scope: hash
// @suite: the header is no part of any other key
sub test_hash_other {
  set req.url = "/app";
  set req.http.Last-Event-ID = "1-0";
  unset req.http.Headwater-Path;
  testing.call_subroutine("vcl_hash");
  assert.not_contains(req.hash, "1-0");
  set req.http.Headwater-Path = "history";
  testing.call_subroutine("vcl_hash");
  assert.not_contains(req.hash, "1-0");
}

// @scope: hash
// @suite: where a stream starts by time or by number is part of its key as well
sub test_hash_query {
  set req.url = "/channels/a?since=-5m&lane=1";
  set req.http.Headwater-Path = "stream";
  unset req.http.Last-Event-ID;
  testing.call_subroutine("vcl_hash");
  assert.contains(req.hash, "/channels/a?since=-5m&lane=1");
}
