# @scope: pass
# A passed request belongs to one client, so it keeps the headers that identify
# the client. The internal headers are removed all the same, and the timeouts
# are those of other streams.

unset bereq.http.Headwater-Path;
unset bereq.http.Headwater-Access;
unset bereq.http.Headwater-Edge-Auth;

if (req.http.Headwater-Path) {
  set bereq.between_bytes_timeout = 20s;
  set bereq.first_byte_timeout = 30s;
  if (req.http.Headwater-Access ~ "^edge ") {
    # When this file is linted alone, the table of init.vcl is not visible.
    // falco-ignore-next-line
    set bereq.http.Headwater-Edge-Auth = table.lookup(headwater_secrets, "edge_auth", "");
  }
}
