def main():
    print("lossbench")
