// Promises of miss.vcl: what the origin gets to see for a crowd.
// Each runs the whole vcl_miss of main.vcl.

// @scope: miss
// @suite: a crowd's request looks like nobody in it, and waits long enough
sub test_miss {
  set req.http.Headwater-Path = "stream";
  set bereq.http.Cookie = "x";
  set bereq.http.Referer = "x";
  set bereq.http.User-Agent = "x";
  set bereq.http.X-Forwarded-For = "x";
  set bereq.http.Headwater-Path = "x";
  set bereq.http.Via = "1.1 a proxy of one client";
  testing.call_subroutine("vcl_miss");
  assert.state(fetch);
  assert.not_match(bereq.http.Cookie, ".");
  assert.not_match(bereq.http.Referer, ".");
  assert.not_match(bereq.http.User-Agent, ".");
  assert.not_match(bereq.http.X-Forwarded-For, ".");
  assert.not_match(bereq.http.Headwater-Path, ".");
  assert.equal(bereq.http.Via, "1.1 headwater-edge");
  assert.equal(bereq.between_bytes_timeout, 20s);
  assert.equal(bereq.first_byte_timeout, 30s);
}

// @scope: miss
// @suite: a request with a credential is passed
sub test_miss_authorization {
  set req.http.Headwater-Path = "stream";
  set req.http.Authorization = "Bearer x";
  testing.call_subroutine("vcl_miss");
  assert.state(pass);
}

// @scope: miss
// @suite: a credential on another path is not ours to judge
sub test_miss_foreign {
  unset req.http.Headwater-Path;
  set req.http.Authorization = "Bearer x";
  set bereq.http.Cookie = "a=1";
  testing.call_subroutine("vcl_miss");
  assert.state(fetch);
  assert.equal(bereq.http.Cookie, "a=1");
}
