// More promises of private.vcl, which falco cannot test: there a shield and a restart cannot be had in
// vcl_recv and vcl_deliver, std.collect does nothing, and assert.is_json is missing.
// Run by `tests/run vcl::`, in the same format.

table tested {
  "private": "secret, prices.*",
}

table secrets {
  "jwt_hs256_secret": "test-secret-of-thirty-two-characters-and-more",
  "jwt_rs256_key": "-----BEGIN PUBLIC KEY-----%0aMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAmKaRfgToRlnlI/4LL3uL%0aSYFpLU/Xf9aJCJohaR55TMAJODNWDqOykY2KfF7m9eD6EwDuRFa0acy6UYhnyh9H%0akSmbmIIKJ3gq+ouzOVV5AkS7SNp+gTIfyfHryZChmQW+hmYTedv14e8875hKw6pg%0akBLlz2SFhA0PWK1Zyq6JbA/kgYyNQGNkQgxn2Cy5+VMxXQdiJvTqMN3w43EQV3+A%0ax1EiL6hr0yr7Mg6YazRX1RqPzpwjT/JKRQ0Wf1w32zPnNpeOsMiFcZWHMhM9r/Tn%0anCwFkjpI79YSb+cyJnLWXovCuT8Y4c+OvQOnPQjYhcTd+hT4lVBgsPcx4TmbOqUI%0aewIDAQAB%0a-----END PUBLIC KEY-----",
  "edge_auth": "edge-secret-for-tests",
}

// @scope: recv
// @suite: several lines of a header are one value
sub test_source_lines {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = "/channels/secret";
  set req.http.Cookie = {"a=b"};
  add req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.equal(req.url, "/channels/secret");
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = "/channels/secret";
  set req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCJ9.OdUL1J6xMyFB0fzivpwjqKspoO40Pf2bXPdyo20xDFM"};
  add req.http.Cookie = {"headwater=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  unset req.http.Authorization;
  unset req.http.Cookie;
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  add req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  assert.is_notset(req.http.Authorization);
}

// @scope: recv
// @suite: a shield believes the edge that knows the secret, and nobody else
sub test_shield {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.inject_variable("fastly.ff.visits_this_service", 1);
  set req.url = "/channels/secret";
  set req.http.Headwater-Edge-Auth = "edge-secret-for-tests";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  assert.is_notset(req.http.Headwater-Edge-Auth);
  assert.false(req.hash_always_miss);
  unset req.http.Headwater-Edge-Auth;
  set req.http.Headwater-Access = "edge /channels/secret";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Headwater-Access, "origin");
  assert.is_notset(req.http.Headwater-Edge-Auth);
  assert.true(req.hash_always_miss);
  set req.http.Headwater-Edge-Auth = "";
  set req.http.Headwater-Access = "edge /channels/secret";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Headwater-Access, "origin");
  assert.is_notset(req.http.Headwater-Edge-Auth);
  assert.true(req.hash_always_miss);
  set req.http.Headwater-Edge-Auth = "x";
  set req.http.Headwater-Access = "edge /channels/secret";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Headwater-Access, "origin");
  assert.is_notset(req.http.Headwater-Edge-Auth);
  assert.true(req.hash_always_miss);
  set req.http.Headwater-Edge-Auth = "edge-secret-for-testsx";
  set req.http.Headwater-Access = "edge /channels/secret";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Headwater-Access, "origin");
  assert.is_notset(req.http.Headwater-Edge-Auth);
  assert.true(req.hash_always_miss);
  set req.http.Headwater-Edge-Auth = "edge-secret-for-test";
  set req.http.Headwater-Access = "edge /channels/secret";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Headwater-Access, "origin");
  assert.is_notset(req.http.Headwater-Edge-Auth);
  assert.true(req.hash_always_miss);
}

// @scope: recv
// @suite: a shield without a secret believes nobody
sub test_shield_unset {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  testing.inject_variable("fastly.ff.visits_this_service", 1);
  set req.url = "/channels/secret";
  testing.table_set(headwater_secrets, "edge_auth", "");
  set req.http.Headwater-Edge-Auth = "";
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Headwater-Access, "origin");
  unset req.http.Headwater-Edge-Auth;
  testing.call_subroutine("vcl_recv");
  assert.equal(req.http.Headwater-Access, "origin");
}

// @scope: recv
// @suite: a restart keeps what was granted, for the same path only
sub test_restart {
  testing.table_merge(headwater, tested);
  testing.table_merge(headwater_secrets, secrets);
  set req.url = "/channels/secret";
  set req.http.Authorization = {"Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInNjb3BlIjoic3Vic2NyaWJlOnNlY3JldCIsInN1YiI6ImFubiJ9.yA-24E5m9qIkz8OAVX_ju8gnSVMBJJ67oJJzIBz_AhY"};
  testing.call_subroutine("vcl_recv");
  testing.inject_variable("req.restarts", 1);
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.equal(req.http.Headwater-Access, "edge /channels/secret");
  set req.url = "/channels/prices.eur";
  testing.call_subroutine("vcl_recv");
  assert.error(691);
  set req.http.Headwater-Access = "edge /channels/secret";
  set req.url = "/channels/open";
  testing.call_subroutine("vcl_recv");
  assert.state(lookup);
  assert.is_notset(req.http.Headwater-Access);
  set req.http.Headwater-Access = "edge /app";
  set req.url = "/app";
  testing.call_subroutine("vcl_recv");
  assert.is_notset(req.http.Headwater-Access);
}

// @scope: deliver
// @suite: a shield leaves the edge something to keep
sub test_deliver_shield {
  set req.http.Headwater-Path = "stream";
  set resp.http.Cache-Control = "public, max-age=20";
  set req.http.Headwater-Access = "edge /channels/secret";
  testing.inject_variable("fastly.ff.visits_this_service", 1);
  testing.call_subroutine("vcl_deliver");
  assert.equal(resp.http.Cache-Control, "public, max-age=20");
}

// @scope: error
// @suite: what a history is refused with is JSON
sub test_refused_json {
  set req.url = "/channels/secret/history";
  set req.http.Headwater-Path = "history";
  set obj.status = 691;
  testing.call_subroutine("vcl_error");
  assert.equal(obj.status, 401);
  assert.is_json(testing.synthetic_body);
  testing.table_set(headwater, "cookie_name", {"a"b\c"});
  set obj.status = 691;
  testing.call_subroutine("vcl_error");
  assert.is_json(testing.synthetic_body);
  set obj.status = 692;
  testing.call_subroutine("vcl_error");
  assert.equal(obj.status, 403);
  assert.is_json(testing.synthetic_body);
  set obj.status = 693;
  testing.call_subroutine("vcl_error");
  assert.equal(obj.status, 401);
  assert.is_json(testing.synthetic_body);
}
