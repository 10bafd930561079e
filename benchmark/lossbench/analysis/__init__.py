"""From the tables to answers: paired effects with intervals, leaderboards with ties, and the verdicts on the
claims.
"""
