// Promises of pass.vcl: what the origin gets to see for one client.
// Each runs the whole vcl_pass of main.vcl.

// @scope: pass
// @suite: a passed request keeps who asked but not our mark
sub test_pass {
  set req.http.Headwater-Path = "stream";
  set bereq.http.Headwater-Path = "stream";
  set bereq.http.X-Forwarded-For = "192.0.2.1";
  testing.call_subroutine("vcl_pass");
  assert.state(pass);
  assert.not_match(bereq.http.Headwater-Path, ".");
  assert.equal(bereq.http.X-Forwarded-For, "192.0.2.1");
  assert.equal(bereq.between_bytes_timeout, 20s);
  assert.equal(bereq.first_byte_timeout, 30s);
}
