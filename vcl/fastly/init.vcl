# @scope: init
# The one place for settings. Tables, because every other file here is pasted
# into a subroutine, where a constant could not be seen from the next one.

table headwater {
  # How many lanes the wave of reconnects at a boundary is split into, 2 to 64;
  # 1 is none. Each lane costs the origin a stream of its own per channel.
  "lanes": "1",

  # The origins of web pages of the origin's --cors-origin, with commas or spaces between them.
  "cors_origins": "",

  # The patterns of the origin's --private, with commas or spaces between them.
  "private": "",
  # What a token must say in `iss` and `aud`, where these are not empty.
  "jwt_issuer": "",
  "jwt_audience": "",
  # The origin's --cookie-name.
  "cookie_name": "headwater",
}

# A write-only dictionary of this name keeps these out of the configuration.
# Fastly makes a table of it, so this one is deleted where there is one.
table headwater_secrets {
  # 32 characters or more; the key of HS256.
  "jwt_hs256_secret": "",
  # The PEM of a public key ("BEGIN PUBLIC KEY"); the key of RS256.
  "jwt_rs256_key": "",
  # What tells the origin that the edge has verified a request.
  "edge_auth": "",
}
