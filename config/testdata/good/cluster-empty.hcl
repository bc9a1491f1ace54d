# Wants nothing: every group is stopped and removed.
