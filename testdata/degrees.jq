# From the coordinates of a time zone, which ISO 6709 writes as
# ±DDMM±DDDMM or ±DDMMSS±DDDMMSS, to degrees with four decimals.

def degrees(digits):
  (if startswith("-") then -1 else 1 end) as $sign
  | [.[1:1 + digits], .[1 + digits:3 + digits], .[3 + digits:]]
  | map(if . == "" then 0 else tonumber end)
  | $sign * (.[0] + .[1] / 60 + .[2] / 3600)
  | . * 10000 | round / 10000;

(.coordinates | capture("^(?<latitude>[+-][0-9]{4,6})(?<longitude>[+-][0-9]{5,7})$")) as $at
| {tz, latitude: ($at.latitude | degrees(2)), longitude: ($at.longitude | degrees(3))}
