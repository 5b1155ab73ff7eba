# @scope: miss
# One request stands for a crowd here, so it must not look like any one of its
# members. Also widens the waits: a backend left at Fastly's defaults would end
# quiet streams, and take what came so far for the whole.

unset bereq.http.Headwater-Access;
unset bereq.http.Headwater-Edge-Auth;

if (req.http.Headwater-Path) {
  if (req.http.Authorization || req.http.Headwater-Access == "origin") {
    return(pass);
  }
  # Two heartbeats may be lost; a long poll may take 20 s to its first byte.
  set bereq.between_bytes_timeout = 20s;
  set bereq.first_byte_timeout = 30s;
  unset bereq.http.Cookie;
  unset bereq.http.Referer;
  unset bereq.http.User-Agent;
  unset bereq.http.X-Forwarded-For;
  unset bereq.http.Headwater-Path;
  # Tells the origin that a cache asks, now that X-Forwarded-For is gone.
  set bereq.http.Via = "1.1 headwater-edge";
  if (req.http.Headwater-Access ~ "^edge ") {
    # Linted alone, this file cannot see the table of init.vcl.
    // falco-ignore-next-line
    set bereq.http.Headwater-Edge-Auth = table.lookup(headwater_secrets, "edge_auth", "");
  }
}
