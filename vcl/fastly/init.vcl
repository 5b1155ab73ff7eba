# @scope: init
# All settings. They are tables, because every other file here is inserted into
# a subroutine, and a constant of one subroutine is not visible in the next.

table headwater {
  # The number of lanes over which the reconnects at a boundary are spread, 2 to
  # 64; 1 means no lanes. Each lane costs the origin one more stream per
  # channel.
  "lanes": "1",

  # The origin's --cors-origin: the origins of web pages, separated by commas or
  # spaces.
  "cors_origins": "",

  # The origin's --private patterns, separated by commas or spaces.
  "private": "",
  # The required `iss` and `aud` of a token; an empty value is not checked.
  "jwt_issuer": "",
  "jwt_audience": "",
  # The origin's --cookie-name.
  "cookie_name": "headwater",
}

# A write-only dictionary of this name keeps the secrets out of the readable
# configuration. Fastly turns a dictionary into a table, so delete this table
# where the dictionary exists.
table headwater_secrets {
  # The key of HS256, 32 characters or more.
  "jwt_hs256_secret": "",
  # The key of RS256: the PEM of a public key ("BEGIN PUBLIC KEY").
  "jwt_rs256_key": "",
  # The secret by which the origin accepts that the edge has verified a request.
  "edge_auth": "",
}
